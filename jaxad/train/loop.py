"""The training loop: from configs and folders to checkpoints and metrics."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxad.config import run_config
from jaxad.data import membership
from jaxad.data.pipeline import batching
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.runtime import interrupts, processes
from jaxad.storage.checkpoint import VALIDATION_LOSS, Checkpoints
from jaxad.storage.workdir import Workdir
from jaxad.train.phases import Phase, dispatches
from jaxad.train.program import Program, cached_features, make_program, train_batches
from jaxad.train.state import TrainState
from jaxad.train.writer import MetricsWriter
from jaxad.types import Split, Tree

logger = logging.getLogger(__name__)


def _stop_requested() -> bool:
    """Whether a signal asks to save and stop; several processes must all ask equally often."""
    # JAX takes SIGTERM for itself in every run that was joined, also as the only process.
    return processes.notice() if processes.are_several() else interrupts.requested()


class _Window:
    """Metrics of the steps since the last log, kept on the device until they are asked for."""

    def __init__(self, program: Program, seeds: Sequence[int]) -> None:
        self._program = program
        self._seeds = seeds
        self._pending: list[tuple[int, int, Tree]] = []
        self._start = time.monotonic()

    def add(self, step: int, count: int, metrics: Tree) -> None:
        """Of `count` updates, the last of which is number `step`."""
        self._pending.append((step, count, metrics))

    def read(self, last_good: int | None) -> list[dict[str, float]]:
        """Means over the window, and steps per second, of each seed; empties it.

        Raises:
            RunError: a value is not finite; names the first such step and term.
        """
        rows = []
        for last, count, metrics in self._pending:
            found = self._program.parallel.get_replicated(metrics)
            for number in range(count):
                one = found if count == 1 else jax.tree.map(lambda x, n=number: x[n], found)
                by_seed = self._program.unstack(one)
                for seed, row in zip(self._seeds, by_seed, strict=True):
                    _check_finite(last - count + 1 + number, seed, row, last_good)
                rows.append(by_seed)
        rate = len(rows) / (time.monotonic() - self._start)
        self._pending = []
        self._start = time.monotonic()
        return [
            {f"train/{name}": value for name, value in _means(of_seed).items()}
            | {"train/steps_per_second": rate}
            for of_seed in zip(*rows, strict=True)
        ]

    def leave_out(self, seconds: float) -> None:
        """Leaves out what a first call compiled."""
        self._start += seconds

    def restart_clock(self) -> None:
        """Leaves out what is not training (validation, a save) from the speed."""
        self._start = time.monotonic()


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of every metric over the steps that have it: phases have metrics of their own."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _check_finite(step: int, seed: int, metrics: Mapping[str, Any], last_good: int | None) -> None:
    """Raises a RunError that names the step, the first term that is not finite and the way back."""
    # Terms before the loss that sums them: the term is the one to name.
    for name in sorted(metrics, key=lambda name: "term/" not in name):
        if not np.isfinite(metrics[name]):
            good = (
                f"the last good checkpoint is step {last_good}"
                if last_good is not None
                else "there is no checkpoint yet"
            )
            raise RunError(
                f"step {step}: {name} is {float(metrics[name])} (seed {seed}), the run stops; "
                f"{good}. Try a smaller config.optim.learning_rate or a config.optim.clip_norm."
            )


def _validate(
    program: Program, state: Tree, split: Split, batch_size: int, features: np.ndarray | None
) -> list[dict[str, float]] | None:
    """Mean losses and terms of each seed over a split, every example counted once.

    None where a signal asks to stop: whoever stops a run does not wait for a validation.
    """
    batches = batching.eval_batches(
        split.images,
        {"label": split.labels, **({} if features is None else {"features": features})},
        batch_size=batch_size * len(program.parallel.devices),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    parallel = program.parallel
    found = []
    for batch in parallel.prefetch(batches):
        if _stop_requested():
            return None
        found.append(program.unstack(parallel.get_replicated(program.validation(state, batch))))

    def means(rows: Sequence[tuple[Mapping[str, Any], Any]]) -> dict[str, float]:
        count = sum(float(number) for _, number in rows)
        names = rows[0][0]
        return {
            f"validation/{name}": sum(float(sums[name]) for sums, _ in rows) / count
            for name in names
        }

    return [means(of_seed) for of_seed in zip(*found, strict=True)]


class _SeedRun:
    """One seed's folder: its checkpoints and its metrics."""

    def __init__(self, workdir: Workdir, keep_last: int, stack: contextlib.ExitStack):
        self.workdir = workdir
        self.checkpoints = stack.enter_context(
            Checkpoints(
                workdir.checkpoints, keep_last=keep_last, read_only=not processes.is_first()
            )
        )
        self._stack = stack
        self.writer: MetricsWriter

    def open_writer(self, start_step: int) -> None:
        self.writer = self._stack.enter_context(MetricsWriter(self.workdir, start_step))

    def save(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
        if processes.is_first():
            self.checkpoints.save(step, state.variables, _training(state), metrics)


def train(config: ConfigDict, workdir: Workdir, data_set: DataSet) -> bool:
    """Trains until the config's last step, from the last checkpoint in the folder if there is one.

    Args:
        config: the run; its folder holds no other run.
        workdir: where checkpoints and metrics go.
        data_set: has splits `train` and `val`.

    Returns:
        True when the run is complete, False when a signal ended it early (a checkpoint is saved).

    Raises:
        UserError: the config asks for something that cannot be.
        RunError: a loss is no longer finite.
    """
    return train_seeds([config], [workdir], data_set)


def train_seeds(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[Workdir],
    data_set: DataSet,
) -> bool:
    """Trains configs that differ in their seed alone, as one program.

    Once the first update is done, a signal saves before it ends the run
    (`jaxad.runtime.interrupts`).

    Args:
        configs: of the runs.
        workdirs: of the runs, whose newest checkpoints are of the same step.
        data_set: see `train`.

    Returns:
        See `train`.

    Raises:
        UserError: see `train`; or the runs have not come equally far.
        RunError: see `train`.
    """
    config, seeds = configs[0], [int(one.seed) for one in configs]
    train_split, validation_split = data_set.split("train"), data_set.split("val")
    for workdir in workdirs:
        membership.check(workdir, data_set)
    program = make_program(config, seeds, len(train_split))
    parallel, num_steps = program.parallel, program.num_steps
    with contextlib.ExitStack() as stack:
        members = [_SeedRun(workdir, config.train.keep_last, stack) for workdir in workdirs]
        last_good, states = _restored(members, program.initial_states)
        start_step = last_good or 0
        if start_step >= num_steps:
            for workdir in workdirs:
                logger.info(f"'{workdir.path}' is trained already: {start_step:,} steps.")
            return True
        state = parallel.put_replicated(program.stack(states))
        splits = {"train": train_split, "val": validation_split}
        features = cached_features(config, program, states, splits)
        plan = list(
            dispatches(
                program.phases, start_step, config.train.steps_per_dispatch,
                (config.train.log_every_steps, config.train.checkpoint_every_steps),
            )
        )  # fmt: skip
        batches = train_batches(
            config, seeds, train_split, start_step, [count for _, count in plan],
            features.get("train"),
        )  # fmt: skip
        # Nothing of the configs can be wrong any more: the folders become these runs'.
        for one, of_seed in zip(members, configs, strict=True):
            run_config.write(one.workdir, of_seed)
            if last_good is None:  # who was there when the run began, and no later
                membership.remember(one.workdir, data_set)
            one.open_writer(start_step)
        window = _Window(program, seeds)
        bar = stack.enter_context(_progress_bar(config, len(seeds), start_step, num_steps))
        step, stopping = start_step, False
        compiled: set[tuple[Phase, int]] = set()
        for dispatch, batch in zip(plan, parallel.prefetch(batches), strict=True):
            called = time.monotonic()
            with jax.transfer_guard("disallow"):
                state, metrics = program.updates[dispatch](state, batch)
            step += dispatch[1]
            window.add(step, dispatch[1], metrics)
            if dispatch not in compiled:
                if not compiled:  # from now on there is something to save
                    here = not processes.are_several()
                    stack.enter_context(interrupts.saves_first(sets_handlers=here))
                compiled.add(dispatch)
                window.leave_out(time.monotonic() - called)
            stopping = _stop_requested()
            saving = stopping or step == num_steps
            saving = saving or step % config.train.checkpoint_every_steps == 0
            if saving or step % config.train.log_every_steps == 0:
                for one, means in zip(members, window.read(last_good), strict=True):
                    means["train/images_per_second"] = (
                        means.pop("train/steps_per_second") * config.data.batch_size * len(members)
                    )
                    rates = program.learning_rates(step - 1)
                    means.update({f"train/{name}": rate for name, rate in rates.items()})
                    one.writer.write(step, means)
                bar.set_postfix(loss=f"{_total_loss(means):.5g}", refresh=False)
                bar.update(step * config.data.batch_size * len(members) - bar.n)
            losses = None
            if saving and not stopping:
                losses = _validate(
                    program, state, validation_split, config.evaluate.batch_size,
                    features.get("val"),
                )  # fmt: skip
                stopping = losses is None
            if stopping:
                _save(program, members, step, state, [{}] * len(members))
                break
            if losses is not None:
                totals = []
                for one, seed, found in zip(members, seeds, losses, strict=True):
                    _check_finite(step, seed, found, last_good)
                    first = next(iter(program.model.networks))
                    comparable = program.phases.all_begun(step)
                    total = {VALIDATION_LOSS: found[f"validation/loss/{first}"]}
                    totals.append(total if comparable else {})
                    one.writer.write(step, found | totals[-1])
                _save(program, members, step, state, totals)
                last_good = step
                window.restart_clock()
        for one in members:
            one.checkpoints.wait()
        processes.barrier("trained")  # now every process finds the last checkpoint
        stopping = stopping or _stop_requested()
        if stopping:
            folders = ", ".join(f"'{workdir.checkpoints}'" for workdir in workdirs)
            logger.info(
                f"{interrupts.name() or 'SIGTERM'}: saved step {step} of {num_steps} in {folders}; "
                "the same command goes on from there."
            )
            interrupts.answer()
    return not stopping


def _common_step(members: Sequence[_SeedRun]) -> int | None:
    """The newest checkpoint, which is of the same step for every member."""
    steps = {one.checkpoints.last_step for one in members}
    if len(steps) > 1:
        folders = ", ".join(f"'{one.workdir.path}'" for one in members)
        raise UserError(
            f"{folders}: these runs have not come equally far; train them one by one, or with "
            "config.seeds_per_program=1."
        )
    return steps.pop()


def _progress_bar(config: ConfigDict, members: int, start_step: int, num_steps: int) -> Any:
    """Images done, images/s and time left; only process 0 shows it."""
    size = config.data.batch_size * members
    return tqdm(
        total=num_steps * size,
        initial=start_step * size,
        desc=f"train {config.model.name}" + (f" x {members}" if members > 1 else ""),
        unit="image",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not processes.is_first(),
    )


def _total_loss(metrics: Mapping[str, float]) -> float:
    """The sum of the training losses of the networks that are trained."""
    return sum(value for name, value in metrics.items() if name.startswith("train/loss/"))


def _training(state: TrainState) -> dict[str, Tree]:
    return {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}


def _save(
    program: Program,
    members: Sequence[_SeedRun],
    step: int,
    state: TrainState,
    metrics: Sequence[dict[str, float]],
) -> None:
    """Saves every member.

    From the host: of arrays on several devices Orbax would write a part from each, and compile the
    cutting of every shape for every device.
    """
    states = program.unstack(program.parallel.get_replicated(state))
    for one, of_seed, row in zip(members, states, metrics, strict=True):
        one.save(step, of_seed, row)


def _restored(
    members: Sequence[_SeedRun], initial: Sequence[TrainState]
) -> tuple[int | None, Sequence[TrainState]]:
    """Step and states of the newest undamaged checkpoints; the initial states without any.

    Of several processes the first one reads them: another might find other files, or find them
    while a damaged one is set aside.
    """
    step, states = _read(members, initial) if processes.is_first() else (None, initial)
    step = int(processes.broadcast_from_first(np.int32(-1 if step is None else step)))
    if step < 0:
        # Each host computed them: another kind of processor may round otherwise.
        return None, processes.broadcast_from_first(jax.device_get(tuple(initial)))
    return step, processes.broadcast_from_first(tuple(states))


def _read(
    members: Sequence[_SeedRun], initial: Sequence[TrainState]
) -> tuple[int | None, Sequence[TrainState]]:
    if _common_step(members) is None:
        return None, initial
    pairs = zip(members, initial, strict=True)
    steps, states = zip(*(_restore(one.checkpoints, like) for one, like in pairs), strict=True)
    if len(set(steps)) > 1:
        # A RunError: a study then trains the members one by one.
        raise RunError(
            f"after damage these runs go on from different steps, {sorted(set(steps))}; train them "
            "one by one."
        )
    return steps[0], states


def _restore(checkpoints: Checkpoints, like: TrainState) -> tuple[int, TrainState]:
    step, variables, training = checkpoints.restore_newest(like.variables, _training(like))
    mutable = {name: tree for name, tree in variables.items() if name != "params"}
    return step, TrainState(params=variables["params"], mutable=mutable, **training)
