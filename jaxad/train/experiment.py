"""From a config to what training needs: optimisers, phases, augmentation; and its checks."""

import jax
import optax
from ml_collections import ConfigDict

from jaxad.config import flatten
from jaxad.config.model import make_model
from jaxad.data.pipeline.augment import Augmentation
from jaxad.errors import UserError, first_line
from jaxad.runtime.parallel import make_parallel, on_host
from jaxad.train.optim import OptimSettings, make_optimiser
from jaxad.train.phases import Phases, make_phases
from jaxad.types import PretrainedModel, TrainedModel, Tree


def pixels_at_once(config: ConfigDict) -> int:
    """Pixels of the images that a device of one process's CPU learns from at once.

    It is asked before `check`, and before JAX knows of other processes.
    """
    parts = max(1, config.cpu_devices * config.train.accumulate_steps)
    return int(config.data.batch_size * config.data.image_size**2 // parts)


#: Of a run whose data are not there yet, so that the shape of its schedule can be checked.
_ANY_NUMBER_OF_STEPS = 1000

_INFINITY = float("inf")
#: Least and largest value of numbers, by field. A comparison with NaN fails, as it should.
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "cpu_devices": (1, 1024),
    "data.image_size": (16, 2**14),
    "data.channels": (1, 1024),
    "data.batch_size": (1, 2**20),
    "data.augment.rotation": (0, 180),
    "data.augment.scale": (0, 1),
    "data.augment.brightness": (0, 1),
    "data.augment.noise": (0, 1),
    "optim.learning_rate": (0, _INFINITY),
    "optim.b1": (0, 1),
    "optim.b2": (0, 1),
    "optim.warmup_steps": (0, 2**31),
    "optim.clip_norm": (0, _INFINITY),
    "optim.weight_decay": (0, _INFINITY),
    "train.num_epochs": (1e-9, 1e9),
    "train.log_every_steps": (1, 2**31),
    "train.checkpoint_every_steps": (1, 2**31),
    "train.steps_per_dispatch": (1, 10**4),
    "train.accumulate_steps": (1, 2**20),
    "train.keep_last": (1, 2**31),
    "evaluate.batch_size": (1, 2**20),
    "evaluate.bootstrap_resamples": (1, 10**6),
    "evaluate.false_positive_rate": (1e-9, 1 - 1e-9),
    "evaluate.num_examples": (0, 1000),
}


def check(config: ConfigDict) -> None:
    """Checks what can be checked of a run to train before data are generated or read.

    Raises:
        UserError: a field that cannot be, by its path.
    """
    fields = flatten(config)
    ranges = {f"config.{name}": limits for name, limits in _RANGES.items()}
    for network, own in config.optim.networks.items():
        for name in own:
            if f"optim.{name}" in _RANGES:
                ranges[f"config.optim.networks.{network}.{name}"] = _RANGES[f"optim.{name}"]
    for path, (least, largest) in ranges.items():
        if not least <= fields[path] <= largest:
            raise UserError(f"{path}: {fields[path]} is not between {least:g} and {largest:g}.")
    parallel = make_parallel(config.parallel)
    parallel.check_batch_size("config.data.batch_size", config.data.batch_size)
    each, parts = config.data.batch_size // len(parallel.devices), config.train.accumulate_steps
    if each % parts:
        raise UserError(
            f"config.train.accumulate_steps: {each} images a device do not come in {parts} equal "
            "parts; choose a divisor."
        )
    model = make_model(config)
    try:
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        line = first_line(error)
        raise UserError(
            f"config.model: no model '{config.model.name}' can be built of these sizes "
            f"({line}); compare them with its config file."
        ) from error
    if parts > 1 and "codebook" in variables:
        raise UserError(
            f"config.train.accumulate_steps: '{config.model.name}' moves its codebooks by the "
            "whole batch; leave it at 1."
        )
    if isinstance(model, TrainedModel):
        optimisers(config, model, variables["params"], phases(config, model, _ANY_NUMBER_OF_STEPS))
    if isinstance(model, PretrainedModel):
        with on_host():
            model.pretrained_variables(jax.random.key(0))  # tells what is wrong with the weights


def phases(config: ConfigDict, model: TrainedModel, num_steps: int) -> Phases:
    """Which of the model's networks each of so many updates trains.

    Raises:
        UserError: see `jaxad.train.phases.make_phases`.
    """
    return make_phases(config.train.updates.to_dict(), tuple(model.networks), num_steps)


def optimisers(
    config: ConfigDict, model: TrainedModel, params: Tree, schedule: Phases
) -> dict[str, optax.GradientTransformation]:
    """The optimiser of each network.

    Raises:
        UserError: see `jaxad.train.optim.make_optimiser`; or `config.optim.networks` speaks of no
            network or no field.
    """
    for name in config.optim.networks:
        if name not in model.networks:
            raise UserError(
                f"config.optim.networks.{name}: this system has no such network; it has "
                f"{', '.join(model.networks)}."
            )
    return {
        # One at least: a run that never trains a network is refused once its length is known.
        name: make_optimiser(
            optim_settings(config, name), params, max(1, schedule.count(name)), owned
        )
        for name, owned in model.networks.items()
    }


def optim_settings(config: ConfigDict, network: str) -> OptimSettings:
    """`config.optim` as a network's optimiser takes it."""
    fields = config.optim.to_dict()
    own = fields.pop("networks").get(network, {})
    unknown = sorted(own.keys() - (fields.keys() - {"frozen"}))
    if unknown:
        raise UserError(
            f"config.optim.networks.{network}.{unknown[0]}: config.optim has no such field for a "
            "network."
        )
    return OptimSettings(**{**fields, **own})


def augmentation(config: ConfigDict) -> Augmentation:
    """`config.data.augment` as the pipeline takes it."""
    return Augmentation(**config.data.augment.to_dict())
