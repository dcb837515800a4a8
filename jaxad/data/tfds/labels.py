"""Any data set of TensorFlow Datasets with labels: one-class or leave-one-out detection."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxad.data.files.splitting import Splitting, pick
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.prepare_images import prepare_image
from jaxad.data.tfds.folder import data_folder
from jaxad.errors import NO_ROOM, RunError, UserError, first_line
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.storage import io_errors
from jaxad.types import Split

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Classes:
    """Which classes are normal; one of the two is empty.

    Attributes:
        normal: names; the others are anomalous (one-class: one of them).
        anomalous: names; the others are normal (leave-one-out: one of them).
    """

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]

    def normal_labels(self, names: Sequence[str], data_set: str) -> set[int]:
        """The numbers of the normal classes.

        Raises:
            UserError: none or both are named, one is not known, or none is left anomalous.
        """
        if bool(self.normal) == bool(self.anomalous):
            raise UserError(
                f"config.data.normal_classes: name the normal classes of {data_set}, or the "
                "anomalous ones in config.data.anomalous_classes; it has "
                f"{', '.join(names)}."
            )
        field = "normal_classes" if self.normal else "anomalous_classes"
        named = self.normal or self.anomalous
        for name in named:
            if name not in names:
                raise UserError(
                    f"config.data.{field}: {data_set} has no class '{name}'; it has "
                    f"{', '.join(names)}."
                )
        numbers = {names.index(name) for name in named}
        normal = numbers if self.normal else set(range(len(names))) - numbers
        if not 0 < len(normal) < len(names):
            raise UserError(
                f"config.data.{field}: all classes of {data_set} are named; leave some out."
            )
        return normal


def open_labelled(
    name: str, root: str, classes: Classes, preparation: Preparation, splitting: Splitting
) -> dict[str, Callable[[], Split]]:
    """The splits of a data set: `train` and `val` of its normal training images, and `test`.

    Args:
        name: as TFDS has it, such as `mnist` or `cifar10:3.0.2`.
        root: the TFDS data folder; "" takes TFDS's own default.
        classes: which are normal.
        preparation: of pixels.
        splitting: the share of `val`. Images are drawn one by one: TFDS knows no patients.

    Raises:
        UserError: there is no such data set, it cannot be fetched, it has not one image and one
            label, or no split `train` or `test`.
        RunError: there is no room for it.
    """
    tensorflow()  # hides the accelerators before TFDS uses it
    import tensorflow_datasets as tfds

    folder = data_folder(root)
    try:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare()
    # TFDS raises what it finds: unknown names, no network, checksums, manual downloads.
    except Exception as error:
        line, number = first_line(error), io_errors.find_error_number(error)
        if number in NO_ROOM:
            raise RunError(
                f"data folder '{folder}' takes no more ({os.strerror(number)}); make room, or "
                "choose another with --config.data.root or $TFDS_DATA_DIR."
            ) from error
        raise UserError(
            f"config.data.name: tfds:{name} cannot be had ({line[:300]}); see "
            "https://www.tensorflow.org/datasets/catalog for names, and $TFDS_DATA_DIR or "
            "config.data.root for where data lie."
        ) from error
    image_key, label_key = _keys(builder, name)
    normal = classes.normal_labels(builder.info.features[label_key].names, f"tfds:{name}")
    for needed in ("train", "test"):
        if needed not in builder.info.splits:
            raise UserError(
                f"config.data.name: tfds:{name} has no split '{needed}', only "
                f"{', '.join(builder.info.splits)}; name a data set that has both."
            )

    read = functools.partial(_read, builder, image_key, label_key, normal, preparation, splitting)
    return {split: functools.partial(read, split) for split in ("train", "val", "test")}


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """The names of the image and of the label among the features."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key, one in features.items() if isinstance(one, tfds.features.Image)]
    labels = [key for key, one in features.items() if isinstance(one, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys or ()
    images = [key for key in images if key in supervised] or images
    labels = [key for key in labels if key in supervised] or labels
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"config.data.name: tfds:{name} has {len(images)} images and {len(labels)} labels an "
            "example; name a data set of one image and one label."
        )
    return images[0], labels[0]


def _read(
    builder: Any,
    image_key: str,
    label_key: str,
    normal: set[int],
    preparation: Preparation,
    splitting: Splitting,
    split: str,
) -> Split:
    """One split in memory, in the order of the files."""
    import tensorflow_datasets as tfds

    source = "test" if split == "test" else "train"
    chosen: set[str] | None = None
    if split != "test":
        count = builder.info.splits["train"].num_examples
        names = [f"train-{number:06d}" for number in range(count)]
        val, train = pick(names, (splitting.val_share,), splitting.seed)
        chosen = val if split == "val" else train
    images, labels, ids = [], [], []
    dataset = builder.as_dataset(split=source, shuffle_files=False)
    for number, row in enumerate(tfds.as_numpy(dataset)):
        name = f"{source}-{number:06d}"
        is_normal = int(row[label_key]) in normal
        if chosen is not None and (name not in chosen or not is_normal):
            continue
        images.append(prepare_image(row[image_key], preparation, f"tfds image {name}"))
        labels.append(int(not is_normal))
        ids.append(name)
    if not images:
        raise UserError(
            f"tfds split '{split}': no image of a normal class; name others in "
            "config.data.normal_classes."
        )
    if split == "train":
        logger.warning(f"note: {builder.name} knows no patients; images are drawn alone.")
    return Split(
        images=np.stack(images),
        labels=np.array(labels, np.int32),
        ids=tuple(ids),
        groups=tuple(ids),
    )
