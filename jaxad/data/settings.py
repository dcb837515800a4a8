"""From `config.data` to what the readers of files take; the one place that reads these fields."""

import dataclasses

from ml_collections import ConfigDict

from jaxad.data.cutting import Cutting
from jaxad.data.folders import Splitting
from jaxad.data.items import Kind, Reading
from jaxad.data.preparation import Preparation


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
