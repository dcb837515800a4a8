"""What training computes, compiled: the step and the validation of one seed or of several at once.

Several seeds of one config are one program, `vmap` of the same step over a leading axis of the
state and the second axis of the batch (the first is the one that devices share). On one device
each seed computes what it would compute alone.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxad.config.model import make_model
from jaxad.data.pipeline import batching
from jaxad.data.pipeline.augment import Augmentation
from jaxad.runtime import processes
from jaxad.runtime.parallel import Dispatched, Parallel, make_parallel
from jaxad.storage.paths import expand
from jaxad.train.feature_cache import FeatureCache, default_folder
from jaxad.train.optim import learning_rate_schedule, make_optimisers, network_settings
from jaxad.train.phases import Phase, Phases, check_phases, make_phases
from jaxad.train.state import TrainState, create_state, initial_variables
from jaxad.train.step import train_step, validation_sums
from jaxad.types import PretrainedModel, Split, TrainedModel, Tree

logger = logging.getLogger(__name__)

Step = Callable[[Tree, Tree], tuple[Tree, Tree]]


def num_train_steps(config: ConfigDict, num_examples: int) -> int:
    """Updates in a run: `config.train.num_epochs` passes over the examples, at least one update."""
    per_epoch = batching.steps_per_epoch(num_examples, config.data.batch_size)
    return max(1, round(config.train.num_epochs * per_epoch))


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled training, for as many seeds as `initial_states`.

    Attributes:
        model: what it trains.
        parallel: how arrays lie on the devices.
        num_steps: updates in the run.
        phases: which networks each update trains.
        schedules: by network, its updates done -> learning rate of its next.
        updates: by phase and number of updates at once, (state, batch) -> (state, metrics); donates
            the state. Several updates take their batches stacked on the second axis, behind the one
            that devices share, and give their metrics stacked on the first.
        validation: (state, batch) -> (sums, number of examples).
        initial_states: one per seed.
    """

    model: TrainedModel
    parallel: Parallel
    num_steps: int
    phases: Phases
    schedules: Mapping[str, optax.Schedule]
    updates: Mapping[tuple[Phase, int], Dispatched]
    validation: Dispatched
    initial_states: tuple[TrainState, ...]

    def learning_rates(self, step: int) -> dict[str, float]:
        """Of the networks that update `step` (0-based) trains; of a lone one without its name."""
        rates = {
            name: float(self.schedules[name](self.phases.count(name, step)))
            for name in self.phases.at(step)
        }
        if len(self.schedules) == 1:
            return {"learning_rate": next(iter(rates.values()))}
        return {f"learning_rate/{name}": rate for name, rate in rates.items()}

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """The states of all seeds as the program takes them."""
        if len(states) == 1:
            return states[0]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *states)

    def unstack(self, tree: Tree) -> list[Tree]:
        """One tree per seed of what `parallel.get_replicated` brought to the host."""
        if len(self.initial_states) == 1:
            return [tree]
        return [
            jax.tree.map(lambda leaf, number=number: leaf[number], tree)
            for number in range(len(self.initial_states))
        ]


def make_program(config: ConfigDict, seeds: Sequence[int], num_examples: int) -> Program:
    """The program that trains a config with each of the seeds (`config.seed` is not looked at).

    Raises:
        UserError: the config asks for something that cannot be.
    """
    parallel = make_parallel(config.parallel)
    model = make_model(config, parallel.axis_name)
    assert isinstance(model, TrainedModel)
    num_steps = num_train_steps(config, num_examples)
    phases = make_phases(config.train.updates, model.networks, num_steps)
    check_phases(phases)
    variables = [initial_variables(model, seed) for seed in seeds]
    optimisers = make_optimisers(config.optim, model.networks, variables[0]["params"], phases)

    def update(phase: Phase, count: int) -> Dispatched:
        step = functools.partial(
            train_step,
            model=model,
            optimisers={name: optimisers[name] for name in phase},
            axis_name=parallel.axis_name,
            accumulate=config.train.accumulate_steps,
            rematerialise=config.train.rematerialise,
        )
        if len(seeds) > 1:
            step = jax.vmap(step, in_axes=(0, 1))
        if count > 1:
            step = functools.partial(_several, step)
        return parallel.compile_reduce(step, donate_state=True)

    validation = functools.partial(validation_sums, model=model, axis_name=parallel.axis_name)
    if len(seeds) > 1:
        # Every seed sees the same validation examples.
        validation = jax.vmap(validation, in_axes=(0, None))
    return Program(
        model=model,
        parallel=parallel,
        num_steps=num_steps,
        phases=phases,
        schedules={
            name: learning_rate_schedule(network_settings(config.optim, name), phases.count(name))
            for name in model.networks
        },
        # Compiled when they are first called.
        updates={
            (phase, count): update(phase, count)
            for phase in {phases.at(step) for step in range(num_steps)}
            for count in {1, config.train.steps_per_dispatch}
        },
        validation=parallel.compile_reduce(validation),
        initial_states=tuple(
            create_state(one, optimisers, seed) for one, seed in zip(variables, seeds, strict=True)
        ),
    )


def _several(step: Step, state: Tree, batches: Tree) -> tuple[Tree, Tree]:
    """One update after another, of batches stacked on their second axis."""
    return jax.lax.scan(step, state, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batches))


def cached_features(
    config: ConfigDict,
    program: Program,
    states: Sequence[TrainState],
    splits: Mapping[str, Split],
) -> dict[str, np.ndarray]:
    """Features of the splits that a frozen encoder sees as they are, by the split's name.

    Empty where the system has no such encoder, each image is another one at each step, seeds have
    encoders of their own, there is no cache or no room for it; then features are computed in
    every step.
    """
    named, model = config.train.feature_cache, program.model
    if not isinstance(model, PretrainedModel) or named == "off":
        return {}
    folder = expand(named, "config.train.feature_cache") if named else default_folder()
    why_not = ""
    if not Augmentation(**config.data.augment).is_off:
        why_not = "config.data.augment changes the images at every step"
    encoders = [[state.mutable[name] for name in model.frozen_collections] for state in states]
    if not all(_equal(encoders[0], other) for other in encoders[1:]):
        why_not = "every seed has an encoder of its own"
    if folder is None:
        why_not = "this user has no home folder; name a folder in config.train.feature_cache"
    if folder is None or why_not:
        logger.info(f"feature cache: not used, {why_not}.")
        return {}
    cache = FeatureCache(
        folder=folder,
        dtype=config.train.feature_cache_dtype,
        model=model,
        variables=states[0].variables,
        # Every process by itself: they take turns where they share the folder.
        parallel=program.parallel.local(),
        batch_size=config.evaluate.batch_size,
    )
    found = {name: cache.features(split, name) for name, split in splits.items()}
    # All processes or none: features were rounded, and a program with them is another one.
    there = {name: processes.of_all(array is not None) for name, array in found.items()}
    return {name: array for name, array in found.items() if array is not None and all(there[name])}


def _equal(one: Tree, other: Tree) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def train_batches(
    config: ConfigDict,
    seeds: Sequence[int],
    split: Split,
    start_step: int,
    counts: Iterable[int],
    features: np.ndarray | None = None,
) -> Iterator[batching.HostBatch]:
    """The batches of the updates from `start_step` on, as `Program.updates` take them.

    Each seed gets the order and augmentation that it would have alone.

    Args:
        config: of the run.
        seeds: of the program.
        split: to learn from.
        start_step: updates done before.
        counts: of updates in each dispatch.
        features: of every example of the split, where they were computed before.
    """
    counts = list(counts)
    streams = [
        batching.train_batches(
            split,
            batch_size=config.data.batch_size,
            seed=seed,
            augmentation=Augmentation(**config.data.augment),
            start_step=start_step,
            stop_step=start_step + sum(counts),
            features=features,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for seed in seeds
    ]
    steps = map(_stacked, zip(*streams, strict=True))
    for count in counts:
        yield _stacked(list(itertools.islice(steps, count)))


def _stacked(batches: Sequence[batching.HostBatch]) -> batching.HostBatch:
    """Several batches as one, on the second axis; one as it is."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}
