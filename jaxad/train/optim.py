"""Optimisers from `config.optim`."""

import dataclasses
import re
from collections.abc import Sequence

import jax
import optax

from jaxad.errors import UserError
from jaxad.types import Tree

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """Settings of an optimiser; the fields are those of `config.optim`."""

    name: str
    learning_rate: float
    b1: float
    b2: float
    schedule: str
    warmup_steps: int
    clip_norm: float
    weight_decay: float
    frozen: tuple[str, ...]


def parameter_paths(params: Tree) -> Tree:
    """Replaces every parameter by its path, such as `trunk/layers_1/Dense_0/kernel`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join(str(key.key) for key in path), params
    )


def matches(params: Tree, patterns: Sequence[str]) -> Tree:
    """Replaces every parameter by whether any regular expression matches its whole path."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return jax.tree.map(
        lambda path: any(pattern.fullmatch(path) for pattern in compiled), parameter_paths(params)
    )


def learning_rate_schedule(settings: OptimSettings, num_steps: int) -> optax.Schedule:
    """Makes a linear warm-up from zero, then a constant, or a cosine to zero at `num_steps`."""
    if settings.schedule not in SCHEDULES:
        raise UserError(
            f"config.optim.schedule: unknown schedule '{settings.schedule}'; "
            f"known: {', '.join(SCHEDULES)}."
        )
    remaining = max(num_steps - settings.warmup_steps, 1)
    after = (
        optax.cosine_decay_schedule(settings.learning_rate, remaining)
        if settings.schedule == "cosine"
        else optax.constant_schedule(settings.learning_rate)
    )
    if not settings.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, settings.learning_rate, settings.warmup_steps)
    return optax.join_schedules([warmup, after], [settings.warmup_steps])


def make_optimiser(
    settings: OptimSettings, params: Tree, num_steps: int, owned: str = ".*"
) -> optax.GradientTransformation:
    """Makes the optimiser of a network.

    Args:
        settings: `config.optim` with the overrides of the network.
        params: the parameters of the model.
        num_steps: updates of the network in the run, for the schedule.
        owned: regular expression over the paths of the network's parameters; the gradients of all
            others must be zero.

    Raises:
        UserError: an unknown name; or a frozen pattern is no regular expression, matches no
            parameter, or all patterns together match every parameter.
    """
    if settings.name not in OPTIMISERS:
        raise UserError(
            f"config.optim.name: unknown optimiser '{settings.name}'; "
            f"known: {', '.join(OPTIMISERS)}."
        )
    rate = learning_rate_schedule(settings, num_steps)
    parts = []
    if settings.clip_norm:
        parts.append(optax.clip_by_global_norm(settings.clip_norm))
    if settings.name == "sgd":
        if settings.weight_decay:
            parts.append(optax.add_decayed_weights(settings.weight_decay))
        parts.append(optax.sgd(rate, momentum=settings.b1 or None))
    else:
        if settings.name == "adam" and settings.weight_decay:
            # L2 in the gradient, as in PyTorch's Adam; adamw decouples it instead.
            parts.append(optax.add_decayed_weights(settings.weight_decay))
        parts.append(optax.scale_by_adam(b1=settings.b1, b2=settings.b2))
        if settings.name == "adamw" and settings.weight_decay:
            parts.append(optax.add_decayed_weights(settings.weight_decay))
        parts.append(optax.scale_by_learning_rate(rate))
    trainable = optax.chain(*parts)
    trains = matches(params, [owned])
    if settings.frozen:
        frozen = _frozen(settings.frozen, params)
        trains = jax.tree.map(lambda owned, frozen: owned and not frozen, trains, frozen)
    if all(jax.tree.leaves(trains)):
        return trainable
    return optax.partition(
        {"trained": trainable, "still": optax.set_to_zero()},  # names in checkpoints
        jax.tree.map(lambda is_trained: "trained" if is_trained else "still", trains),
    )


def _frozen(patterns: tuple[str, ...], params: Tree) -> Tree:
    """Replaces every parameter by whether it is frozen; checks the patterns."""
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
