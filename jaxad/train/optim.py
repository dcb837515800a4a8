"""Optimisers from `config.optim`."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax
import optax
from ml_collections import ConfigDict

from jaxad.errors import UserError
from jaxad.train.phases import Phases
from jaxad.types import TrainedModel, Tree


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """The fields of `config.optim` for one network; see `jaxad.config.fields`."""

    name: str
    learning_rate: float
    b1: float
    b2: float
    epsilon: float
    schedule: str
    warmup_steps: int
    clip_norm: float
    weight_decay: float
    frozen: tuple[str, ...]


def network_settings(optim: ConfigDict, network: str) -> OptimSettings:
    """The settings of a network: `config.optim` with the network's own fields in their place.

    Raises:
        UserError: `config.optim.networks` has a field that no network can have.
    """
    fields = optim.to_dict()
    changes = fields.pop("networks").get(network, {})
    unknown = sorted(changes.keys() - (fields.keys() - {"frozen"}))
    if unknown:
        raise UserError(
            f"config.optim.networks.{network}.{unknown[0]}: config.optim has no such field for a "
            "network; remove it."
        )
    return OptimSettings(**{**fields, **changes})


def make_optimisers(
    optim: ConfigDict, model: TrainedModel, params: Tree, phases: Phases
) -> dict[str, optax.GradientTransformation]:
    """The optimiser of each network; see `jaxad.types.TrainedModel.networks`.

    `params` are those of the whole system; `phases` give the number of updates of each network.

    Raises:
        UserError: see `make_optimiser` and `network_settings`; or `config.optim.networks` names a
            network that the system does not have.
    """
    for name in optim.networks:
        if name not in model.networks:
            raise UserError(
                f"config.optim.networks.{name}: this system has no such network; it has "
                f"{', '.join(model.networks)}."
            )
    factors = getattr(model, "decay_factors", {})
    optimisers = {}
    for name, owned in model.networks.items():
        num_steps = max(1, phases.count(name))  # `check_phases` refuses a run without any
        settings = network_settings(optim, name)
        optimisers[name] = make_optimiser(settings, params, num_steps, owned, factors)
    return optimisers


def parameter_paths(params: Tree) -> Tree:
    """The tree of parameter paths such as `trunk/layers_1/Dense_0/kernel`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join(str(key.key) for key in path), params
    )


def matches(params: Tree, patterns: Sequence[str]) -> Tree:
    """Returns a tree of bools: whether any regular expression matches a parameter's whole path."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return jax.tree.map(
        lambda path: any(pattern.fullmatch(path) for pattern in compiled), parameter_paths(params)
    )


def learning_rate_schedule(settings: OptimSettings, num_steps: int) -> optax.Schedule:
    """Linear warm-up from zero, then constant or a cosine that reaches zero at `num_steps`."""
    after = optax.constant_schedule(settings.learning_rate)
    if settings.schedule == "cosine":
        remaining = max(num_steps - settings.warmup_steps, 1)
        after = optax.cosine_decay_schedule(settings.learning_rate, remaining)
    if not settings.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, settings.learning_rate, settings.warmup_steps)
    return optax.join_schedules([warmup, after], [settings.warmup_steps])


def make_optimiser(
    settings: OptimSettings,
    params: Tree,
    num_steps: int,
    owned: str = ".*",
    decay_factors: Mapping[str, float] = MappingProxyType({}),
) -> optax.GradientTransformation:
    """The optimiser of one network.

    Args:
        settings: the settings of the network.
        params: parameters of the whole system; `frozen` and `owned` match their paths.
        num_steps: updates of the network in the run, for the schedule.
        owned: regular expression over the paths of its parameters; all others stay fixed.
        decay_factors: see `jaxad.types.TrainedModel`.

    Raises:
        UserError: a `frozen` pattern is not a regular expression, matches no parameter, or all
            parameters are frozen.
    """
    rate = learning_rate_schedule(settings, num_steps)
    clip = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    l2 = _l2(settings.weight_decay, params, decay_factors) if settings.weight_decay else []
    decay = [optax.add_decayed_weights(settings.weight_decay)] if settings.weight_decay else []
    adam = optax.scale_by_adam(settings.b1, settings.b2, settings.epsilon)
    step = optax.scale_by_learning_rate(rate)
    chains = {
        "sgd": [*clip, *l2, optax.sgd(rate, momentum=settings.b1 or None)],
        "adam": [*clip, *l2, adam, step],  # L2 in the gradient, as in torch's Adam
        "adamw": [*clip, adam, *decay, step],
    }
    trainable = optax.chain(*chains[settings.name])
    trains = matches(params, [owned])
    if settings.frozen:
        frozen = _frozen(settings.frozen, params)
        trains = jax.tree.map(lambda own, still: own and not still, trains, frozen)
    if all(jax.tree.leaves(trains)):
        return trainable
    return optax.partition(
        {"trained": trainable, "still": optax.set_to_zero()},
        jax.tree.map(lambda moves: "trained" if moves else "still", trains),
    )


def _l2(
    weight_decay: float, params: Tree, factors: Mapping[str, float]
) -> list[optax.GradientTransformation]:
    """Adds the gradient of L2 penalties, each parameter's scaled by its factor (by default 1)."""
    scaled = [matches(params, [pattern]) for pattern in factors]
    rest = jax.tree.map(lambda *matched: not any(matched), *scaled) if scaled else None
    return [
        optax.add_decayed_weights(weight_decay, rest),
        *(
            optax.add_decayed_weights(weight_decay * factor, mask)
            for mask, factor in zip(scaled, factors.values(), strict=True)
        ),
    ]


def _frozen(patterns: tuple[str, ...], params: Tree) -> Tree:
    """A tree of bools: whether a parameter is frozen; raises a UserError for a useless pattern."""
    for pattern in patterns:
        try:
            matched = any(jax.tree.leaves(matches(params, [pattern])))
        except re.error as error:
            raise UserError(
                f"config.optim.frozen: '{pattern}' is not a regular expression ({error})."
            ) from error
        if not matched:
            example = jax.tree.leaves(parameter_paths(params))[0]
            raise UserError(
                f"config.optim.frozen: '{pattern}' matches no parameter; paths look like "
                f"'{example}'."
            )
    frozen = matches(params, patterns)
    if all(jax.tree.leaves(frozen)):
        raise UserError("config.optim.frozen: every parameter is frozen; leave some to train.")
    return frozen
