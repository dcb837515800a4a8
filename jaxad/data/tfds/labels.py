"""Labelled data sets of TensorFlow Datasets, as one-class or leave-one-out detection."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.data_sets import TFDS, Readers
from jaxad.data.files.splitting import Splitting, pick
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.prepare_images import prepare_image
from jaxad.data.tfds.folder import data_folder, raise_if_full, upload
from jaxad.errors import UserError, first_line
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.types import Split

logger = logging.getLogger(__name__)


def open_labelled(data: ConfigDict) -> Readers:
    """Downloads a data set unless it is cached, and returns a reader for each split.

    `train` and `val` hold its normal training images, `test` its test images. Images are drawn one
    by one, because TFDS does not know patients.

    Raises:
        UserError: there is no such data set, it cannot be downloaded, its examples do not have one
            image and one label, it lacks `train` or `test`, or the classes do not fit.
        RunError: the data folder is full.
    """
    tensorflow()  # hides the accelerators before TFDS uses it
    import tensorflow_datasets as tfds

    name = data.name.removeprefix(TFDS)
    part = name.partition(":")[0]
    folder = data_folder(data.root, part)
    try:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare()
        upload(folder, part)
    except Exception as error:  # TFDS has many types: unknown names, checksums, downloads, ...
        raise_if_full(folder, error, "--config.data.root or $TFDS_DATA_DIR")
        raise UserError(
            f"config.data.name: tfds:{name} cannot be opened ({first_line(error)[:300]}); names "
            "are listed at https://www.tensorflow.org/datasets/catalog. Data are kept in "
            "config.data.root, by default $TFDS_DATA_DIR."
        ) from error
    image_key, label_key = _keys(builder, name)
    for split in ("train", "test"):
        if split not in builder.info.splits:
            raise UserError(
                f"config.data.name: tfds:{name} has no split '{split}', only "
                f"{', '.join(builder.info.splits)}; name a data set that has both."
            )
    classes = builder.info.features[label_key].names
    normal = _normal_labels(data, classes)
    preparation, splitting = settings.preparation(data), settings.splitting(data)
    read = functools.partial(_read, builder, image_key, label_key, normal, preparation, splitting)
    return {split: functools.partial(read, split) for split in ("train", "val", "test")}


def _normal_labels(data: ConfigDict, classes: Sequence[str]) -> set[int]:
    """Returns the labels (indices into `classes`) of the normal classes."""
    listed = ", ".join(classes)
    if bool(data.normal_classes) == bool(data.anomalous_classes):
        raise UserError(
            f"config.data.normal_classes: name the normal classes of {data.name}, or the anomalous "
            f"ones in config.data.anomalous_classes; it has {listed}."
        )
    field = "normal_classes" if data.normal_classes else "anomalous_classes"
    chosen = data[field]
    for name in chosen:
        if name not in classes:
            raise UserError(
                f"config.data.{field}: {data.name} has no class '{name}'; it has {listed}."
            )
    if len(set(chosen)) == len(classes):
        raise UserError(f"config.data.{field}: all classes of {data.name} are named; omit some.")
    labels = {classes.index(name) for name in chosen}
    return labels if data.normal_classes else set(range(len(classes))) - labels


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """Returns the names of the features that hold the image and the label."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys or ()
    images = [key for key in images if key in supervised] or images
    labels = [key for key in labels if key in supervised] or labels
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"config.data.name: tfds:{name} has {len(images)} images and {len(labels)} labels per "
            "example; name a data set with one image and one label."
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
    """Reads one split into memory, in the order of its files."""
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
            f"tfds split '{split}': no image of a normal class; name other classes in "
            "config.data.normal_classes."
        )
    if split == "train":
        logger.warning(
            f"note: {builder.name} has no patient ids; every image counts as a patient of its own."
        )
    return Split(
        images=np.stack(images),
        labels=np.array(labels, np.int32),
        ids=tuple(ids),
        groups=tuple(ids),
        unnamed=frozenset(ids),
    )
