"""The compiled programs of training: updates and validation, for one seed or several.

Several seeds of a config are one program: `vmap` of the update over the first axis of the state and
the second axis of the batch, whose first axis is the one that devices share. On one device each
seed computes what it would compute alone.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxad.config.model import make_model
from jaxad.data.pipeline import batching
from jaxad.data.pipeline.augment import Augmentation
from jaxad.runtime.parallel import Dispatched, Parallel, make_parallel
from jaxad.train.fit import FITTED_STEP
from jaxad.train.optim import learning_rate_schedule, make_optimisers, network_settings
from jaxad.train.phases import Phase, Phases, check_phases, make_phases
from jaxad.train.state import TrainState, create_state, initial_variables
from jaxad.train.step import train_step, validation_sums
from jaxad.types import FittedModel, Split, TrainedModel, Tree

#: Most validations in a run that is no longer than `config.train.checkpoint_every_steps`.
_MOST_VALIDATIONS = 50

Step = Callable[[Tree, Tree], tuple[Tree, Tree]]


def num_train_steps(config: ConfigDict, num_examples: int) -> int:
    """Returns the last step of a run.

    A trained model does `config.train.num_epochs` passes over the examples and at least one update;
    a fitted one has one step.
    """
    if isinstance(make_model(config), FittedModel):
        return FITTED_STEP
    return num_updates(config, num_examples)


def num_updates(config: ConfigDict, num_examples: int) -> int:
    """Returns the updates that a trained model does; see `num_train_steps`."""
    per_epoch = num_examples / config.data.batch_size
    return max(1, round(config.train.num_epochs * per_epoch))


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled training of one or several seeds.

    Attributes:
        parallel: the layout of arrays on the devices.
        num_steps: updates in the run.
        save_every: updates between validations and checkpoints.
        phases: the networks that each update trains.
        schedules: network -> schedule of its learning rate over its own updates.
        updates: (phase, number of updates) -> compiled (state, batch) -> (state, metrics), which
            donates the state. Several updates take their batches stacked on the second axis, behind
            the one that devices share, and return their metrics stacked on the first.
        validation: compiled (state, batch) -> (sums, number of examples).
        initial_states: the initial state of each seed.
    """

    seeds: tuple[int, ...]
    model: TrainedModel
    parallel: Parallel
    num_steps: int
    save_every: int
    phases: Phases
    schedules: Mapping[str, optax.Schedule]
    updates: Mapping[tuple[Phase, int], Dispatched]
    validation: Dispatched
    initial_states: tuple[TrainState, ...]

    def learning_rates(self, step: int) -> dict[str, float]:
        """Returns the learning rates of the networks that update `step` (0-based) trains.

        Names are `learning_rate/<network>`, or `learning_rate` where there is one network.
        """
        rates = {
            name: float(self.schedules[name](self.phases.count(name, step)))
            for name in self.phases.at(step)
        }
        if len(self.schedules) == 1:
            return {"learning_rate": next(iter(rates.values()))}
        return {f"learning_rate/{name}": rate for name, rate in rates.items()}

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """Stacks the states of all seeds for the program."""
        if len(states) == 1:
            return states[0]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *states)

    def unstack(self, tree: Tree) -> list[Tree]:
        """Splits a result that `parallel.get_replicated` brought to the host into one per seed."""
        if len(self.seeds) == 1:
            return [tree]
        return [jax.tree.map(lambda leaf, n=n: leaf[n], tree) for n in range(len(self.seeds))]


def make_program(config: ConfigDict, seeds: Sequence[int], num_examples: int) -> Program:
    """Makes the program that trains a config with each of the seeds; `config.seed` is ignored.

    Raises:
        UserError: the config has a mistake.
    """
    parallel = make_parallel(config.parallel)
    model = make_model(config, parallel.axis_name)
    assert isinstance(model, TrainedModel)
    num_steps = num_train_steps(config, num_examples)
    phases = make_phases(config.train.updates, model.networks, num_steps)
    check_phases(phases)
    variables = [initial_variables(model, seed) for seed in seeds]
    optimisers = make_optimisers(config.optim, model, variables[0]["params"], phases)

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
            step = functools.partial(_scan_updates, step)
        return parallel.compile_reduce(step, donate_state=True)

    validation = functools.partial(validation_sums, model=model, axis_name=parallel.axis_name)
    if len(seeds) > 1:
        # All seeds see the same validation examples.
        validation = jax.vmap(validation, in_axes=(0, None))
    return Program(
        seeds=tuple(seeds),
        model=model,
        parallel=parallel,
        num_steps=num_steps,
        save_every=_save_every(config, num_steps, num_examples),
        phases=phases,
        schedules={
            name: learning_rate_schedule(network_settings(config.optim, name), phases.count(name))
            for name in model.networks
        },
        # Each is compiled when it is first called.
        updates={
            (phase, count): update(phase, count)
            for phase in {phases.at(step) for step in range(num_steps)}
            for count in {1, config.train.steps_per_dispatch}
        },
        validation=parallel.compile_reduce(validation),
        initial_states=tuple(
            create_state(of_seed, optimisers, seed)
            for of_seed, seed in zip(variables, seeds, strict=True)
        ),
    )


def _save_every(config: ConfigDict, num_steps: int, num_examples: int) -> int:
    """Returns the updates between validations: in a short run at most those of one epoch.

    Epochs of few updates share one: checkpoints would take longer than the training.
    """
    every = int(config.train.checkpoint_every_steps)
    if num_steps > every:
        return every
    per_epoch = num_examples // config.data.batch_size
    return min(every, max(per_epoch, math.ceil(num_steps / _MOST_VALIDATIONS)))


def _scan_updates(step: Step, state: Tree, batches: Tree) -> tuple[Tree, Tree]:
    """Does one update after another, on batches stacked on their second axis."""
    return jax.lax.scan(step, state, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batches))


def train_batches(
    config: ConfigDict,
    seeds: Sequence[int],
    split: Split,
    start_step: int,
    counts: Iterable[int],
    features: np.ndarray | None = None,
) -> Iterator[batching.HostBatch]:
    """Yields the batches for `Program.updates` from `start_step` on.

    Each seed gets the order and augmentation that it would have alone. `counts` are the numbers of
    updates in each dispatch, `features` those of every example of the split, if they are cached.
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
    steps = map(_stack, zip(*streams, strict=True))
    for count in counts:
        yield _stack(list(itertools.islice(steps, count)))


def _stack(batches: Sequence[batching.HostBatch]) -> batching.HostBatch:
    """Stacks batches on the second axis; returns a single one unchanged."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}
