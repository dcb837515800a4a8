"""From `config.data` to what the readers of files take; the one place that reads these fields."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from jaxad.config import base
from jaxad.data.data_sets import data_set_info
from jaxad.data.files.folders import Splitting
from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Reading
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import TAKES, Preparation
from jaxad.errors import UserError


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


#: Kinds and names of data sets that use a field of `config.data` which others do not.
_USED_BY: Mapping[str, tuple[str, ...]] = {
    "preprocess": ("files", "published", "tfds"),
    "volume": ("volumes",),
    "modality": ("hcp", "brats2017", "brats2021", "external"),
    "regroup": ("oct2017", "chestxray"),
    "val_share": ("files", "published", "tfds", "external"),
    "test_share": ("files", "brats2017", "brats2021", "external"),
    "check_sizes": ("published",),
    "group_pattern": ("files", "miic", "external"),
    "normal_classes": ("files", "miic", "tfds", "external"),
    "anomalous_classes": ("tfds", "external"),
}


def check_used(data: ConfigDict) -> None:
    """Raises a UserError for a field that was set and would be passed over."""
    given, defaults = data.to_dict(), base().data.to_dict()
    infos = [data_set_info(data.name)]
    if data.test.name:
        infos.append(data_set_info(data.test.name, "config.data.test.name"))
    kinds = {kind for info in infos for kind in info.kinds}
    for field, users in _USED_BY.items():
        if given[field] != defaults[field] and not kinds & set(users):
            raise UserError(
                f"config.data.{field}: '{data.name}' has no use for it; it is of "
                f"{', '.join(users)}."
            )
    prepared = preparation(data)
    intensities = {
        (prepared.of_volumes() if info.holds_scans else prepared.of_images()).intensity
        for info in infos
        if not info.is_prepared
    }
    for field in ("foreground", "clip", "percentiles"):
        users = tuple(name for name, fields in TAKES.items() if field in fields)
        changed = given["preprocess"][field] != defaults["preprocess"][field]
        if changed and intensities and not intensities & set(users):
            raise UserError(
                f"config.data.preprocess.{field}: intensity '{min(intensities)}' has no use for "
                f"it; set config.data.preprocess.intensity to {' or '.join(users)}."
            )
