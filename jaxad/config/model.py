"""From a config to its model; the only module that reads `config.model`.

Models never see a ConfigDict: they get the fields of their dataclass.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxad import models
from jaxad.config.shape import data_shape
from jaxad.types import Model

#: `config.precision` -> dtype of convolutions and matrix products.
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the images that the config's system takes."""
    return data_shape(config.data)


def make_model(config: ConfigDict, axis_name: str | None = None) -> Model:
    """The system that `config.model` names, computing in `config.precision`.

    Args:
        config: the config of a run; see `jaxad.config.check`.
        axis_name: the device axis that batch statistics are summed over; None for one device.

    Raises:
        UserError: unknown model, or a field or image size that the model cannot take.
    """
    fields = {name: value for name, value in config.model.to_dict().items() if name != "name"}
    return models.build(
        config.model.name,
        fields,
        image_shape=image_shape(config),
        dtype=PRECISIONS[config.precision],
        axis_name=axis_name,
    )
