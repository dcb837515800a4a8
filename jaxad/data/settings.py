"""From `config.data` to what the readers of files take; the one place that reads these fields."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from jaxad.config import base
from jaxad.data.files.formats import KINDS, Kind
from jaxad.data.files.items import Reading
from jaxad.data.files.splitting import Splitting
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import TAKES, Preparation
from jaxad.errors import UserError

#: Before the name of any data set of TensorFlow Datasets.
TFDS = "tfds:"


def preparation(data: ConfigDict) -> Preparation:
    """How pixels become an image.

    Raises:
        UserError: a field cannot be.
    """
    fields = data.preprocess.to_dict()
    return Preparation(image_size=data.image_size, channels=data.channels, **fields)


def cutting(data: ConfigDict) -> Cutting:
    """How volumes are cut.

    Raises:
        UserError: a field cannot be.
    """
    return Cutting(**data.volume.to_dict())


def splitting(data: ConfigDict) -> Splitting:
    """Who is in which split.

    Raises:
        UserError: a field cannot be.
    """
    fields = [field.name for field in dataclasses.fields(Splitting)]
    return Splitting(**{name: data[name] for name in fields})


def reading(data: ConfigDict, kind: Kind) -> Reading:
    """How files of a kind are read.

    Raises:
        UserError: a field cannot be.
    """
    return Reading(kind, preparation(data), cutting(data), data.on_error)


#: Fields of `config.data` that some data sets alone have a use for; `tfds:` is any of TFDS.
_USED_BY: Mapping[str, tuple[str, ...]] = {
    "preprocess": (*KINDS, TFDS),
    "volume": tuple(name for name, kind in KINDS.items() if kind != "image"),
    "modality": ("hcp", "brats2017", "brats2021"),
    "regroup": ("oct2017", "chestxray"),
    "val_share": (*KINDS, TFDS),
    "test_share": ("folder", "nifti", "dicom", "brats2017", "brats2021"),
    "check_sizes": tuple(name for name in KINDS if name not in ("folder", "nifti", "dicom")),
    "group_pattern": ("folder", "nifti", "dicom", "miic"),
    "normal_classes": ("folder", "nifti", "dicom", "miic", TFDS),
    "anomalous_classes": (TFDS,),
}


def check_used(data: ConfigDict) -> None:
    """Raises a UserError for a field that was set and would be passed over."""
    given, defaults = data.to_dict(), base().data.to_dict()
    names = [TFDS if name.startswith(TFDS) else name for name in (data.name, data.test.name)]
    for field, users in _USED_BY.items():
        if given[field] != defaults[field] and not set(names) & set(users):
            raise UserError(
                f"config.data.{field}: '{data.name}' has no use for it; it is of "
                f"{', '.join(users)}."
            )
    prepared = preparation(data)
    intensities = {
        (prepared.of_images() if KINDS.get(name, "image") == "image" else prepared.of_volumes())
        .intensity
        for name in names
        if name in KINDS or name == TFDS
    }  # fmt: skip
    for field in ("foreground", "clip", "percentiles"):
        users = tuple(name for name, fields in TAKES.items() if field in fields)
        changed = given["preprocess"][field] != defaults["preprocess"][field]
        if changed and intensities and not intensities & set(users):
            raise UserError(
                f"config.data.preprocess.{field}: intensity '{min(intensities)}' has no use for "
                f"it; set config.data.preprocess.intensity to {' or '.join(users)}."
            )
