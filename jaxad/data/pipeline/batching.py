"""Batches as a pure function of the step, so that no iterator state has to be saved.

Training batch `step` holds the examples at positions `step * B` to `step * B + B - 1` of an endless
stream. Each epoch of the stream is a permutation of the split, computed by `index_shuffle` from the
seed and the epoch number. A resumed run therefore sees the same batches as an uninterrupted one,
with any number of processes: each process takes its rows of every global batch, and the
augmentation of an example is keyed by its position in the stream.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxad.data.pipeline.augment import Augmentation, augment
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.errors import UserError
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.runtime.parallel import num_cores
from jaxad.types import Pixels, Split

_SHUFFLE_STREAM = 1
#: Batches that are made at once, at most.
_MOST_BATCHES = 16

HostBatch = dict[str, np.ndarray]


def local_rows(batch_size: int, process_index: int, process_count: int) -> np.ndarray:
    """Returns the rows [b] of a global batch that belong to this process.

    Raises:
        UserError: the batch size is not a multiple of the number of processes.
    """
    if batch_size % process_count:
        raise UserError(
            f"batch size {batch_size} cannot be split evenly over {process_count} processes; "
            f"choose a multiple of {process_count}."
        )
    size = batch_size // process_count
    return np.arange(process_index * size, (process_index + 1) * size, dtype=np.int32)


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    start_step: int,
    stop_step: int,
    features: np.ndarray | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[HostBatch]:
    """Yields this process's rows of the training batches `start_step` to `stop_step - 1`.

    `batch_size` is the size B of the global batch, and `seed` decides on the order and the
    augmentation. `features` [N, ...] come from the examples without augmentation.

    Yields:
        `image` float32 [b, H, W, C] in [0, 1], `label` int32 [b], `_valid` bool [b] (all true),
        `_index` int32 [b], the row in the global batch, and `features` [b, ...] if given;
        b = B / process_count.

    Raises:
        UserError: the processes cannot share the batch, or images on disk cannot be read.
    """
    tf = tensorflow()
    rows = local_rows(batch_size, process_index, process_count)
    errors: list[UserError] = []
    num_examples = len(split)

    arrays = {"label": split.labels, **({} if features is None else {"features": features})}

    def gather(indices: np.ndarray) -> list[np.ndarray]:
        try:
            images = to_unit_interval(split.images[indices])
        except UserError as error:
            errors.append(error)
            raise
        return [images, *(x[indices] for x in arrays.values())]

    @tf.autograph.experimental.do_not_convert  # there is no Python control flow to convert
    def make_batch(step: Any) -> dict[str, Any]:
        positions = step * batch_size + tf.constant(rows, tf.int64)
        epochs, offsets = positions // num_examples, positions % num_examples
        # The op that tf.random.experimental.index_shuffle wraps; the wrapper pads one seed per
        # row wrongly. The seed has three words: the run's seed, the epoch, and a constant that
        # separates this use of the seed from the augmentation's.
        seeds = tf.stack([tf.fill([len(rows)], tf.constant(seed, tf.int64)), epochs], axis=1)
        seeds = tf.pad(seeds, [[0, 0], [0, 1]], constant_values=_SHUFFLE_STREAM)
        indices = tf.raw_ops.RandomIndexShuffle(
            index=offsets,
            seed=tf.cast(seeds, tf.int32),
            max_index=tf.constant(num_examples - 1, tf.int64),
            rounds=4,
        )
        types = [tf.float32, *(tf.as_dtype(x.dtype) for x in arrays.values())]
        images, *gathered = tf.numpy_function(gather, [indices], types, stateful=False)
        images.set_shape((len(rows), *split.images.shape[1:]))
        return {
            "image": augment(images, positions, seed, augmentation),
            **dict(zip(arrays, gathered, strict=True)),
            "_valid": tf.ones(len(rows), tf.bool),
            "_index": tf.constant(rows),
        }

    options = tf.data.Options()
    options.deterministic = True
    # There is nothing to tune, and the end of an iterator waits up to a minute for the tuner.
    options.autotune.enabled = False
    dataset = tf.data.Dataset.range(start_step, stop_step)
    # Two batches at once, or, if their images are decoded, one for each core.
    count = 2 if isinstance(split.images, np.ndarray) else min(max(2, num_cores()), _MOST_BATCHES)
    dataset = dataset.map(make_batch, num_parallel_calls=count).prefetch(2).with_options(options)
    return _with_errors_of_images(dataset.as_numpy_iterator(), errors)


def _with_errors_of_images(
    batches: Iterator[HostBatch], errors: list[UserError]
) -> Iterator[HostBatch]:
    """Yields batches; raises the first of `errors` in place of TensorFlow's error that wraps it."""
    try:
        yield from batches
    except tensorflow().errors.OpError as error:
        if errors:
            raise errors[0] from error
        raise


def num_eval_batches(num_examples: int, batch_size: int) -> int:
    """Returns the number of padded batches in which every example appears once."""
    return -(-num_examples // batch_size)


def eval_batches(
    images: Pixels,
    arrays: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[HostBatch]:
    """Yields this process's rows of batches that hold every example once, in order.

    The last batch is padded with `_valid` false: all batches have one shape, all processes have the
    same number of batches, and no example is dropped or counted twice. The images are uint8, uint16
    or float in [0, 1], [N, H, W, C], and B is the size of the global batch.

    Yields:
        `image` float32 [b, H, W, C] in [0, 1], each of `arrays`, `_valid` bool [b] and `_index`
        int32 [b], the row in `images` (0 for padding); b = B / process_count.
    """
    rows = local_rows(batch_size, process_index, process_count)
    for number in range(num_eval_batches(len(images), batch_size)):
        places = number * batch_size + rows
        valid = places < len(images)
        places = np.where(valid, places, 0)
        yield {
            "image": to_unit_interval(images[places]),
            **{name: array[places] for name, array in arrays.items()},
            "_valid": valid,
            "_index": places.astype(np.int32),
        }
