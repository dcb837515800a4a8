"""Batches as a function of the step: resuming, shuffling and several processes."""

import numpy as np
import pytest

from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.pipeline.batching import (
    eval_batches,
    local_rows,
    num_eval_batches,
    train_batches,
)
from jaxad.errors import UserError
from jaxad.types import Split

EVERYTHING = Augmentation(mirror=True, rotation=8.0, scale=0.1, brightness=0.2, noise=0.05)
NOTHING = Augmentation()


def _split(num_examples, size=6, dtype=np.uint8):
    """Makes a split whose image i is filled with i + 1, which identifies examples in batches."""
    numbers = np.arange(num_examples)
    filled = np.broadcast_to((numbers + 1)[:, None, None, None], (num_examples, size, size, 1))
    names = tuple(f"image-{number}" for number in numbers)
    return Split(
        images=filled.astype(dtype),
        labels=(numbers % 2).astype(np.int32),
        ids=names,
        groups=names,
    )


def _textured_split(num_examples, size=8):
    images = np.random.default_rng(0).integers(1, 256, (num_examples, size, size, 1), np.uint8)
    names = tuple(f"image-{number}" for number in range(num_examples))
    return Split(images, np.zeros(num_examples, np.int32), names, names)


def _batches(split, batch_size, stop_step, *, seed=0, augmentation=NOTHING, start_step=0, **shared):
    return list(
        train_batches(
            split,
            batch_size=batch_size,
            seed=seed,
            augmentation=augmentation,
            start_step=start_step,
            stop_step=stop_step,
            **shared,
        )
    )


def _example_numbers(batches):
    """Returns the examples of `_split` in batches, in order."""
    pixels = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
    return np.rint(pixels * 255).astype(int) - 1


def _assert_same_batches(actual, expected):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


# --- Training batches.


def test_a_training_batch_has_the_documented_arrays():
    (batch,) = _batches(_split(10), batch_size=4, stop_step=1, augmentation=EVERYTHING)
    described = {name: (array.shape, array.dtype) for name, array in batch.items()}
    assert described == {
        "image": ((4, 6, 6, 1), np.float32),
        "label": ((4,), np.int32),
        "_valid": ((4,), np.bool_),
        "_index": ((4,), np.int32),
    }
    assert batch["_valid"].all()
    np.testing.assert_array_equal(batch["_index"], [0, 1, 2, 3])


@pytest.mark.parametrize("start_step", [1, 4, 7])
def test_a_resumed_stream_is_bit_identical(start_step):
    split = _textured_split(10)
    # 8 steps of 4 are 3.2 epochs of 10: the start steps lie in different epochs.
    uninterrupted = _batches(split, 4, 8, augmentation=EVERYTHING)
    resumed = _batches(split, 4, 8, augmentation=EVERYTHING, start_step=start_step)
    _assert_same_batches(resumed, uninterrupted[start_step:])


def test_an_example_is_augmented_differently_in_every_epoch():
    split = _textured_split(1)
    first, second = _batches(split, 1, 2, augmentation=EVERYTHING)
    assert not np.array_equal(first["image"], second["image"])


@pytest.mark.parametrize(
    ("num_examples", "batch_size"),
    [(12, 4), (10, 4), (7, 3), (3, 5), (1, 2)],
    ids=["divides", "remainder", "coprime", "batch-above-split", "one-image"],
)
def test_every_epoch_of_the_stream_is_a_permutation_of_the_split(num_examples, batch_size):
    # batch_size * num_examples examples are batch_size whole epochs.
    batches = _batches(_split(num_examples), batch_size, stop_step=num_examples)
    epochs = _example_numbers(batches).reshape(batch_size, num_examples)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(num_examples))


def test_epochs_and_seeds_have_different_orders():
    split = _split(40)
    first, second = _example_numbers(_batches(split, 8, 10)).reshape(2, 40)
    other_seed = _example_numbers(_batches(split, 8, 5, seed=1))
    # Two random permutations of 40 agree in one place on average.
    for name, one, other in [
        ("not shuffled", first, np.arange(40)),
        ("epochs repeat", first, second),
        ("seeds repeat", first, other_seed),
        ("seed 1 repeats epoch 1 of seed 0", second, other_seed),
    ]:
        assert (one == other).sum() < 10, name


def test_labels_stay_with_their_images():
    batches = _batches(_split(11), 4, 6)
    labels = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(labels, _example_numbers(batches) % 2)


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_processes_rows_make_up_the_global_batch(process_count):
    split = _textured_split(10)
    whole = _batches(split, 8, 3, augmentation=EVERYTHING)
    parts = [
        _batches(
            split,
            8,
            3,
            augmentation=EVERYTHING,
            process_index=index,
            process_count=process_count,
        )
        for index in range(process_count)
    ]
    together = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    _assert_same_batches(together, whole)


def test_local_rows_are_consecutive_parts():
    np.testing.assert_array_equal(local_rows(6, 0, 2), [0, 1, 2])
    np.testing.assert_array_equal(local_rows(6, 1, 2), [3, 4, 5])


@pytest.mark.parametrize("make", ["train", "eval"])
def test_a_batch_that_processes_cannot_share_is_refused(make):
    split = _split(10)
    with pytest.raises(UserError, match=r"batch size 8 .* 3 processes; choose a multiple of 3"):
        if make == "train":
            _batches(split, 8, 1, process_count=3)
        else:
            list(eval_batches(split.images, {}, batch_size=8, process_count=3))


# --- Evaluation batches.


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "num_batches"),
    [(8, 4, 2), (9, 4, 3), (3, 4, 1), (1, 4, 1), (0, 4, 0)],
)
def test_evaluation_yields_every_example_once_in_order(num_examples, batch_size, num_batches):
    split = _split(num_examples)
    numbers = np.arange(num_examples, dtype=np.int32)
    batches = list(eval_batches(split.images, {"number": numbers}, batch_size=batch_size))
    assert len(batches) == num_batches == num_eval_batches(num_examples, batch_size)
    seen = [batch["number"][batch["_valid"]] for batch in batches]
    np.testing.assert_array_equal(np.concatenate([[], *seen]), numbers)
    for number, batch in enumerate(batches):
        assert batch["image"].shape == (batch_size, 6, 6, 1)
        assert batch["image"].dtype == np.float32
        np.testing.assert_array_equal(
            batch["_index"][batch["_valid"]],
            np.arange(number * batch_size, number * batch_size + batch["_valid"].sum()),
        )
        # Arrays are batched along with the images: image i is filled with i + 1.
        np.testing.assert_array_equal(_example_numbers([batch]), batch["number"])


@pytest.mark.parametrize("num_examples", [1, 5, 8, 9, 12])
def test_every_process_evaluates_the_same_number_of_batches(num_examples):
    split = _split(num_examples)
    numbers = np.arange(num_examples, dtype=np.int32)

    def part(index, count):
        arrays = {"number": numbers}
        shared = {"batch_size": 4, "process_index": index, "process_count": count}
        return list(eval_batches(split.images, arrays, **shared))

    whole, first, second = part(0, 1), part(0, 2), part(1, 2)
    together = [
        {name: np.concatenate([left[name], right[name]]) for name in left}
        for left, right in zip(first, second, strict=True)
    ]
    _assert_same_batches(together, whole)


# --- Pixels.


@pytest.mark.parametrize(
    ("dtype", "raw", "expected"),
    [
        # 51 / 255 = 13107 / 65535 = 1 / 5
        (np.uint8, [0, 51, 255], [0.0, 0.2, 1.0]),
        (np.uint16, [0, 13107, 65535], [0.0, 0.2, 1.0]),
        (np.float32, [0.0, 0.2, 1.0], [0.0, 0.2, 1.0]),
        (np.float64, [0.0, 0.2, 1.0], [0.0, 0.2, 1.0]),
    ],
)
def test_pixels_of_every_type_come_out_in_the_unit_interval(dtype, raw, expected):
    split = _split(3)
    images = np.broadcast_to(np.array(raw, dtype)[:, None, None, None], (3, 6, 6, 1))
    split = Split(images, split.labels, split.ids, split.groups)
    (evaluated,) = eval_batches(images, {}, batch_size=3)
    (trained,) = _batches(split, 3, 1)
    for batch in (evaluated["image"], trained["image"]):
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(np.sort(batch[:, 2, 3, 0]), np.float32(expected))
