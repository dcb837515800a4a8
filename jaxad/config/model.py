"""Builds the model of a config; the only module that reads `config.model`.

Models never see a ConfigDict: they get its fields.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxad import models
from jaxad.errors import UserError
from jaxad.types import Model

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that the config's system takes."""
    return (config.data.image_size, config.data.image_size, config.data.channels)


def make_model(config: ConfigDict, axis_name: str | None = None) -> Model:
    """Builds the system that `config.model` names, in `config.precision`.

    Args:
        config: the config of a run.
        axis_name: mapped axis that batch statistics are combined over; None for none.

    Raises:
        UserError: the model or the precision is unknown, or a field or the image size is refused.
    """
    if config.precision not in PRECISIONS:
        raise UserError(
            f"config.precision: unknown precision '{config.precision}'; "
            f"known: {', '.join(PRECISIONS)}."
        )
    fields = {name: value for name, value in config.model.to_dict().items() if name != "name"}
    return models.build(
        config.model.name,
        fields,
        image_shape=image_shape(config),
        dtype=PRECISIONS[config.precision],
        axis_name=axis_name,
    )
