"""Checks of a run's config that need its model, before any data are generated or read."""

from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config.fields import FIELDS
from jaxad.config.model import make_model
from jaxad.errors import UserError, first_line
from jaxad.extension import is_external
from jaxad.runtime.parallel import Parallel, make_parallel, on_host
from jaxad.train import tracking, trial
from jaxad.train.optim import make_optimisers
from jaxad.train.phases import make_phases
from jaxad.types import Model, PretrainedModel, TrainedModel

#: Updates of a run whose length is unknown until its data are read.
_ANY_NUMBER_OF_STEPS = 1000


def check(config: ConfigDict, *, is_of_study: bool = False) -> None:
    """Checks the config of a run to train.

    With `is_of_study`, all experiments have the same `config.train.num_epochs`, which may be set
    although a system does not use it.

    Raises:
        UserError: a value is not allowed, a package is missing, the devices cannot share the batch,
            or the model, its weights or its optimisers cannot be made; names the field.
    """
    config_lib.check(config)
    tracking.check(config)
    _check_batch(config, make_parallel(config.parallel))
    model = make_model(config)
    variables = _shapes(config, model)
    if config.train.accumulate_steps > 1 and "codebook" in variables:
        raise UserError(
            f"config.train.accumulate_steps: '{config.model.name}' updates its codebooks from the "
            "whole batch; leave it at 1."
        )
    if is_external(config.model.name):
        trial.check_methods(config.model.name, model, variables)
    if isinstance(model, TrainedModel):
        phases = make_phases(config.train.updates, model.networks, _ANY_NUMBER_OF_STEPS)
        make_optimisers(config.optim, model, variables["params"], phases)
    else:
        _check_has_effect(config, is_of_study)
    if isinstance(model, PretrainedModel):
        with on_host():
            model.pretrained_variables(jax.random.key(0))  # raises if the weights cannot be read


def _check_batch(config: ConfigDict, parallel: Parallel) -> None:
    """Raises a UserError where devices and parts do not divide the batch."""
    parallel.check_batch_size("config.data.batch_size", config.data.batch_size)
    images = config.data.batch_size // len(parallel.devices)
    parts = config.train.accumulate_steps
    if images % parts:
        raise UserError(
            f"config.train.accumulate_steps: {images} images per device cannot be split into "
            f"{parts} equal parts; choose a divisor."
        )


def _shapes(config: ConfigDict, model: Model) -> Mapping[str, Any]:
    """Shapes of the model's variables; raises a UserError where its sizes do not fit together."""
    if is_external(config.model.name):
        return trial.check_variables(config.model.name, model)
    try:
        # The key is traced, too: a concrete one compiles two programs.
        return jax.eval_shape(lambda: model.init_variables(jax.random.key(0)))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"config.model: the model '{config.model.name}' cannot be built with these sizes "
            f"({first_line(error)}); compare them with its config file."
        ) from error


def _check_has_effect(config: ConfigDict, is_of_study: bool) -> None:
    """Raises a UserError for a changed field that a model fitted in one pass does not use."""
    values = config_lib.flatten(config)
    for field in FIELDS:
        path = f"config.{field.path}"
        changed = path in values and values[path] != field.default
        if field.is_open_group:
            changed = any(name.startswith(f"{path}.") for name in values)
        is_shared = is_of_study and field.path == "train.num_epochs"
        if field.trained_only and changed and not is_shared:
            raise UserError(
                f"{path}: has no effect on '{config.model.name}', which is fitted in one pass; "
                "leave it at its default."
            )
