"""From a config to the objects it describes; the one place that reads model and optimiser fields.

Models never see a ConfigDict: they get their fields.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxad import models
from jaxad.config import flatten
from jaxad.data.augment import Augmentation
from jaxad.errors import UserError
from jaxad.parallel import make_parallel
from jaxad.train.optim import OptimSettings
from jaxad.types import Model

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the images that the config's system takes."""
    return (config.data.image_size, config.data.image_size, config.data.channels)


def make_model(config: ConfigDict, axis_name: str | None = None) -> Model:
    """The system that `config.model` names, in `config.precision`.

    Raises:
        UserError: unknown model or precision, or a field or image size that the model cannot take.
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


#: Fields that count something: the least value that makes sense.
_LEAST = {
    "seed": 0,
    "data.image_size": 16,
    "data.channels": 1,
    "data.batch_size": 1,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": 1,
    "train.keep_last": 1,
    "evaluate.batch_size": 1,
    "evaluate.bootstrap_resamples": 1,
    "evaluate.num_examples": 0,
}


def check(config: ConfigDict) -> None:
    """Checks what can be checked of a config before data are generated or read.

    Raises:
        UserError: a field that cannot be, by its path.
    """
    fields = flatten(config, prefix="")
    for name, least in _LEAST.items():
        if fields[f".{name}"] < least:
            raise UserError(f"config.{name}: {fields[f'.{name}']} is less than {least}.")
    if config.train.num_epochs <= 0:
        raise UserError(f"config.train.num_epochs: {config.train.num_epochs} is not positive.")
    make_model(config)
    parallel = make_parallel(config.parallel)
    parallel.check_batch_size("config.data.batch_size", config.data.batch_size)
    parallel.check_batch_size("config.evaluate.batch_size", config.evaluate.batch_size)


def optim_settings(config: ConfigDict) -> OptimSettings:
    """`config.optim` as the optimiser takes it."""
    return OptimSettings(**config.optim.to_dict())


def augmentation(config: ConfigDict) -> Augmentation:
    """`config.data.augment` as the pipeline takes it."""
    return Augmentation(**config.data.augment.to_dict())
