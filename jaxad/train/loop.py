"""The training loop: updates, logs, validations, and checkpoints.

One program may train several seeds of a config at once. `Program` stacks and unstacks their states,
and `Outputs` writes to all their folders; the loop is that of one seed.
"""

import contextlib
import logging
import time
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from jaxad.config import run_config
from jaxad.config.model import make_model
from jaxad.data import membership
from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.sources import DataSet
from jaxad.extension import errors_named
from jaxad.runtime import interrupts, processes
from jaxad.storage.checkpoint import VALIDATION_LOSS
from jaxad.storage.workdir import Workdir
from jaxad.train import early_stopping
from jaxad.train.feature_cache import cached_features
from jaxad.train.fit import checked, fit, fit_batches, fitted_state
from jaxad.train.initial_weights import start_from
from jaxad.train.metrics import Row, StepMetrics, check_finite, validate
from jaxad.train.optim import learning_rate_schedule, network_settings
from jaxad.train.outputs import Outputs, open_outputs
from jaxad.train.phases import Phase, dispatches, make_phases
from jaxad.train.program import (
    Program,
    make_program,
    num_train_steps,
    num_updates,
    train_batches,
)
from jaxad.train.progress import TrainingProgress
from jaxad.train.state import TrainState
from jaxad.types import FittedModel, Tree

logger = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: Workdir, data_set: DataSet) -> bool:
    """Trains until the last step of the config, from the last checkpoint if there is one.

    Args:
        config: the config of the run.
        workdir: receives checkpoints and metrics; holds no run of another config.
        data_set: has splits `train` and `val`.

    Returns:
        True when the run is complete; False when a signal stopped it and a checkpoint was saved.

    Raises:
        UserError: the config or the data have a mistake.
        RunError: a loss is not finite, or a checkpoint cannot be saved.
    """
    return train_seeds([config], [workdir], data_set)


def train_seeds(
    configs: Sequence[ConfigDict], workdirs: Sequence[Workdir], data_set: DataSet
) -> bool:
    """Trains configs that differ only in their seed as one program; see `train`.

    A `FittedModel` is fitted instead, one seed after another. The newest checkpoints in the folders
    are at the same step, or a UserError is raised.
    """
    configs = [run_config.with_decisions(config, data_set.data) for config in configs]
    for workdir in workdirs:
        membership.check(workdir, data_set)
    if isinstance(make_model(configs[0]), FittedModel):
        return all(
            fit(config, workdir, data_set)
            for config, workdir in zip(configs, workdirs, strict=True)
        )
    early_stopping.check(configs[0], len(configs))
    seeds = [int(config.seed) for config in configs]
    program = make_program(configs[0], seeds, len(data_set.split("train")))
    with open_outputs(workdirs, configs[0].train.keep_last) as outputs:
        last_saved, states = outputs.restore(program.initial_states)
        if last_saved is not None and last_saved >= program.num_steps:
            outputs.log_complete(f"trained already: {last_saved:,} steps")
            return True
        stopping = early_stopping.read(configs[0], workdirs[0], last_saved or 0)
        if stopping.is_due:
            num_images = len(data_set.split("train"))
            outputs.log_complete(
                _describe_early_stop(configs[0], workdirs[0], stopping.last_step, num_images)
            )
            return True
        if last_saved is not None:
            logger.info(f"resumed from step {last_saved:,} of {program.num_steps:,}.")
            _warn_if_longer(configs[0], workdirs[0], program, data_set, last_saved)
        elif configs[0].init_from:
            states = start_from(configs[0], states, data_set)
        else:
            states = _prepared(configs, program, data_set, states)
        _warn_of_batch_and_stopping(configs[0], program, len(data_set.split("train")))
        training = _Training(configs[0], program, outputs, data_set, last_saved, states, stopping)
        outputs.begin(configs, data_set, last_saved)
        return training.run()


def _warn_of_batch_and_stopping(config: ConfigDict, program: Program, num_examples: int) -> None:
    """Warns of a batch larger than an epoch, and of early stopping that cannot have an effect."""
    if not processes.is_first():
        return
    if config.data.batch_size > num_examples:
        logger.warning(
            f"warning: config.data.batch_size={config.data.batch_size}: there are {num_examples:,} "
            "training images, so an update uses images more than once (each update covers "
            f"{config.data.batch_size / num_examples:.3g} epochs)."
        )
    steps = {*range(program.save_every, program.num_steps, program.save_every), program.num_steps}
    early_stopping.warn_if_useless(config, sum(map(program.phases.all_begun, steps)))


def _warn_if_longer(
    config: ConfigDict, workdir: Workdir, program: Program, data_set: DataSet, step: int
) -> None:
    """Warns if `config.train.num_epochs` was raised and a learning rate depends on the length."""
    if not processes.is_first() or not workdir.config.exists():
        return
    before = run_config.read(workdir)
    num_steps = num_train_steps(before, len(data_set.split("train")))
    if num_steps >= program.num_steps:
        return
    phases = make_phases(before.train.updates, program.model.networks, num_steps)
    for name, schedule in program.schedules.items():
        settings = network_settings(config.optim, name)
        if settings.schedule == "constant":
            continue
        count = phases.count(name, step)
        old = learning_rate_schedule(settings, max(1, phases.count(name)))
        rates = [f"{float(rate(count)):.3g}" for rate in (old, schedule)]
        change = "" if rates[0] == rates[1] else ", and its learning rate changes from {} to {}"
        logger.warning(
            f"warning: config.train.num_epochs is now {config.train.num_epochs:g} instead of "
            f"{before.train.num_epochs:g}: the {settings.schedule} schedule of '{name}' stretches"
            f"{change.format(*rates)}; a run of this length from the start ends elsewhere."
        )


def _prepared(
    configs: Sequence[ConfigDict],
    program: Program,
    data_set: DataSet,
    states: Sequence[TrainState],
) -> Sequence[TrainState]:
    """Fits what the model fits before the first update; see `jaxad.types.TrainedModel`."""
    prepare = getattr(program.model, "prepare", None)
    if prepare is None:
        return states
    split, prepared = data_set.split("train"), []
    for config, state in zip(configs, states, strict=True):
        batches = fit_batches(config, program.model, state.variables, split)
        name = config.model.name
        with errors_named(f"config.model: prepare of '{name}'", name):
            variables = prepare(state.variables, checked(batches, config, split))
        prepared.append(fitted_state(config, state, variables, "prepare"))
    # Another kind of processor may round differently.
    return processes.broadcast_from_first(tuple(prepared))


def _describe_early_stop(config: ConfigDict, workdir: Workdir, step: int, num_images: int) -> str:
    """Returns that a run stopped early; if `config` is longer than the run, what to do instead."""
    saved = run_config.read(workdir)
    text = (
        f"trained already: it stopped early at step {step:,} of {num_updates(saved, num_images):,}"
    )
    if config.train.num_epochs <= saved.train.num_epochs:
        return text
    return (
        f"{text}; a larger config.train.num_epochs has no effect on a run that stopped early: to "
        f"train further, start another run from it with --config.init_from={workdir.path} and "
        "another --workdir"
    )


class _Training:
    """The training of one program from a checkpoint to its last step, or until a signal."""

    def __init__(
        self,
        config: ConfigDict,
        program: Program,
        outputs: Outputs,
        data_set: DataSet,
        last_saved: int | None,
        states: Sequence[TrainState],
        stopping: early_stopping.EarlyStopping,
    ):
        self._config = config
        self._program = program
        self._outputs = outputs
        self._splits = {name: data_set.split(name) for name in ("train", "val")}
        self._last_saved = last_saved
        self._step = last_saved or 0
        self._images_per_step = config.data.batch_size * len(program.seeds)
        self._state = program.parallel.put_replicated(program.stack(states))
        self._features = cached_features(
            config,
            program.model,
            program.parallel,
            [state.variables for state in states],
            self._splits,
            images_change=not Augmentation(**config.data.augment).is_off,
        )
        self._metrics = StepMetrics(program, self._images_per_step)
        self._stopping = stopping
        self._called: set[tuple[Phase, int]] = set()

    def run(self) -> bool:
        """Trains; returns whether the run is complete. The last step is saved in either case."""
        if self._lacks_validation():
            losses = self._validate()
            if losses is None:
                self._outputs.log_stop(self._step, self._program.num_steps)
                return False
            self._record(losses)
        is_complete = self._stopping.is_due or self._train()
        if is_complete and self._stopping.is_due:
            logger.info(
                f"stopped early at step {self._step:,} of {self._program.num_steps:,}; validations "
                f"without a lower loss: {self._stopping.waited}."
            )
        return is_complete

    def _train(self) -> bool:
        """Does the updates that are left; see `run`."""
        train, stop = self._config.train, False
        boundaries = (train.log_every_steps, self._program.save_every)
        size = train.steps_per_dispatch
        plan = list(dispatches(self._program.phases, self._step, size, boundaries))
        counts = [count for _, count in plan]
        seeds, split, features = self._program.seeds, self._splits["train"], self._features
        batches = self._program.parallel.prefetch(
            train_batches(self._config, seeds, split, self._step, counts, features.get("train"))
        )
        progress = TrainingProgress(
            self._program, f"{self._config.model.name} on {self._config.data.name}", self._step,
            self._config.data.batch_size, len(split),
        )  # fmt: skip
        self._metrics.restart_clock()
        with progress, contextlib.ExitStack() as stack:
            for dispatch, batch in zip(plan, batches, strict=True):
                is_first = not self._called
                self._update(dispatch, batch)
                if is_first:  # from now on there is something to save
                    stack.enter_context(
                        interrupts.deferred(sets_handlers=not processes.are_several())
                    )
                stop = processes.stop_requested()
                is_save = stop or self._is_due(self._program.save_every)
                if is_save or self._is_due(train.log_every_steps):
                    progress.update(self._step, self._log())
                if is_save:
                    losses = None if stop else self._validate()
                    self._save(losses)
                    progress.save(self._step, losses)
                    stop = losses is None
                if stop or self._stopping.is_due:
                    break
            self._outputs.wait()
            self._outputs.barrier("trained")  # from here on every process finds the last checkpoint
            if stop or processes.stop_requested():
                self._outputs.log_stop(self._step, self._program.num_steps)
                return False
        return True

    def _lacks_validation(self) -> bool:
        """Tells whether a signal kept early stopping from the validation of the last checkpoint."""
        return (
            self._stopping.last_step < self._step
            and self._stopping.patience > 0
            and self._is_due(self._program.save_every)
            and self._program.phases.all_begun(self._step)
        )

    def _is_due(self, every: int) -> bool:
        """Tells whether something that happens every so many steps, and at the end, is due."""
        return self._step % every == 0 or self._step == self._program.num_steps

    def _update(self, dispatch: tuple[Phase, int], batch: Tree) -> None:
        """Does the updates of one dispatch."""
        start = time.monotonic()
        with jax.transfer_guard("disallow"):
            self._state, metrics = self._program.updates[dispatch](self._state, batch)
        count = dispatch[1]
        self._step += count
        self._metrics.add(self._step, count, metrics)
        if dispatch not in self._called:  # the first call compiles
            self._called.add(dispatch)
            self._metrics.exclude(time.monotonic() - start)

    def _log(self) -> list[Row]:
        """Writes the mean metrics since the last log, and returns them."""
        rows = self._metrics.read(self._last_saved)
        self._outputs.write(self._step, rows)
        return rows

    def _validate(self) -> list[Row] | None:
        """Computes the validation losses; None if a signal asks to stop."""
        split, features = self._splits["val"], self._features.get("val")
        batch_size = self._config.evaluate.batch_size
        return validate(self._program, self._state, split, batch_size, features)

    def _record(self, losses: list[Row]) -> list[Row]:
        """Writes validation losses; returns what may make the state the best, for each seed."""
        check_finite(self._step, self._program.seeds, losses, self._last_saved)
        candidates: list[Row] = [{} for _ in self._program.seeds]
        # Before every network has been trained, losses do not tell which state is better.
        if self._program.phases.all_begun(self._step):
            first = next(iter(self._program.model.networks))
            candidates = [{VALIDATION_LOSS: row[f"validation/loss/{first}"]} for row in losses]
            self._stopping.add(self._step, candidates[0][VALIDATION_LOSS])
        rows = [row | best for row, best in zip(losses, candidates, strict=True)]
        self._outputs.write(self._step, rows)
        return candidates

    def _save(self, losses: list[Row] | None) -> None:
        """Saves a checkpoint; with validation losses it may become the best one."""
        candidates = [{} for _ in self._program.seeds] if losses is None else self._record(losses)
        # From the host: of arrays on several devices Orbax would write a part from each, and
        # compile the slicing of every shape for every device.
        states = self._program.unstack(self._program.parallel.get_replicated(self._state))
        self._outputs.save(self._step, states, candidates)
        self._last_saved = self._step
        self._metrics.restart_clock()
