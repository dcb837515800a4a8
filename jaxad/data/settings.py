"""The settings of the readers of files, from `config.data`, and its checks.

Every function raises a UserError for values that are not allowed.
"""

import dataclasses

from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config.fields import FIELDS
from jaxad.config.shape import data_shape
from jaxad.data.data_sets import DataSetInfo, data_set_info, users_of
from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Reading
from jaxad.data.files.splitting import Splitting
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation
from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.runtime.memory import available_memory


def preparation(data: ConfigDict) -> Preparation:
    """Returns how pixels become an image.

    An undecided foreground, `auto`, is `nonzero`; `DataSet` decides it for files.
    """
    fields = data.preprocess.to_dict()
    if fields["foreground"] == "auto":
        fields["foreground"] = "nonzero"
    size, _, channels = data_shape(data)
    return Preparation(image_size=size, channels=channels, **fields)


def normalises(data: ConfigDict) -> bool:
    """Tells whether intensities are normalised over a foreground, as opposed to kept."""
    info, settings = data_set_info(data.name), preparation(data)
    settings = settings.of_volumes() if info.holds_scans else settings.of_images()
    return not info.is_prepared and settings.intensity != "range"


def cutting(data: ConfigDict) -> Cutting:
    """Returns how volumes are cut into slices."""
    return Cutting(**data.volume.to_dict())


def splitting(data: ConfigDict) -> Splitting:
    """Returns how patients are assigned to splits."""
    fields = [field.name for field in dataclasses.fields(Splitting)]
    # Another test set has the same `normal_classes`.
    return Splitting(
        **{name: data[name] for name in fields if name in data},
        shares_classes=bool(data.test.name),
    )


def reading(data: ConfigDict, kind: Kind) -> Reading:
    """Returns how files of a kind are read."""
    return Reading(kind, preparation(data), cutting(data), data.on_error)


def memory_budget(data: ConfigDict) -> float:
    """Returns how many bytes of pixels this process may hold; every process must call it."""
    if data.in_memory:
        return float(data.in_memory) * 2**30
    return available_memory() / 2 / processes.count_on_host()


def check(data: ConfigDict) -> None:
    """Checks `config.data` before any file is opened.

    Raises:
        UserError: a value is not allowed, or a field was changed that has no effect.
    """
    config_lib.check(data, "config.data")
    reading(data, "image")
    splitting(data)
    _check_data_sets(data)
    _check_intensity(data)


def _data_sets(data: ConfigDict) -> list[DataSetInfo]:
    """Returns the records of the data set and of the one in `config.data.test`, if any."""
    infos = [data_set_info(data.name)]
    if data.test.name:
        infos.append(data_set_info(data.test.name, "config.data.test.name"))
    return infos


def _check_data_sets(data: ConfigDict) -> None:
    """Raises a UserError for a changed field that none of the config's data sets uses."""
    values = config_lib.flatten(data, "data")
    kinds = {kind for info in _data_sets(data) for kind in info.kinds}
    for field in FIELDS:
        if not field.data or values[field.path] == field.default or kinds & set(field.data):
            continue
        raise UserError(
            f"config.{field.path}: has no effect on data set '{data.name}', only on "
            f"{', '.join(users_of(field.data))}."
        )


def _check_intensity(data: ConfigDict) -> None:
    """Raises a UserError for a changed field that the data sets' intensities do not use."""
    values, prepared = config_lib.flatten(data, "data"), preparation(data)
    intensities = set()
    for info in _data_sets(data):
        if not info.is_prepared:
            settings = prepared.of_volumes() if info.holds_scans else prepared.of_images()
            intensities.add(settings.intensity)
    for field in FIELDS:
        path, users = field.requires
        changed = bool(path) and values[field.path] != field.default
        if changed and intensities and not intensities & set(users):
            raise UserError(
                f"config.{field.path}: has no effect with intensity '{min(intensities)}'; set "
                f"config.{path} to {' or '.join(users)}."
            )
