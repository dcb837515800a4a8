"""What training writes: the checkpoints and metrics of the runs of one program."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxad.config import run_config
from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.runtime import interrupts, processes
from jaxad.storage.checkpoint import Checkpoints
from jaxad.storage.history import TrainingEntry
from jaxad.storage.workdir import Workdir
from jaxad.train.state import TrainState
from jaxad.train.writer import MetricsWriter
from jaxad.types import Tree

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_outputs(workdirs: Sequence[Workdir], keep_last: int) -> Iterator["Outputs"]:
    """Opens the folders of the runs; leaving the block waits for saves in progress.

    Each run keeps its `keep_last` newest checkpoints and its best one.
    """
    read_only = not processes.is_first()
    with contextlib.ExitStack() as stack:
        checkpoints = [
            stack.enter_context(
                Checkpoints(workdir.checkpoints, keep_last=keep_last, read_only=read_only)
            )
            for workdir in workdirs
        ]
        yield Outputs(workdirs, checkpoints, stack)


class Outputs:
    """The checkpoints and metrics of runs that train together, one for each seed.

    Only the first of several processes writes.
    """

    def __init__(
        self,
        workdirs: Sequence[Workdir],
        checkpoints: Sequence[Checkpoints],
        stack: contextlib.ExitStack,
    ):
        self._workdirs = workdirs
        self._checkpoints = checkpoints
        self._stack = stack
        self._writers: list[MetricsWriter] = []
        self._start = time.monotonic()
        self._start_step = 0
        self._entries: list[TrainingEntry] = []

    def restore(self, initial: Sequence[TrainState]) -> tuple[int | None, Sequence[TrainState]]:
        """Reads the newest undamaged checkpoints.

        Only the first of several processes reads them: another one might find other files, or find
        them while a damaged one is set aside.

        Args:
            initial: the initial state of each run.

        Returns:
            The step and the states; None and the initial states where there is no checkpoint.

        Raises:
            UserError: the newest checkpoints are of different steps, or none is undamaged.
            RunError: the newest undamaged ones are of different steps.
        """
        step, states = self._read(initial) if processes.is_first() else (None, initial)
        step = int(processes.broadcast_from_first(np.int32(-1 if step is None else step)))
        if step < 0:
            # Each host computed them, and another kind of processor may round differently.
            return None, processes.broadcast_from_first(jax.device_get(tuple(initial)))
        return step, processes.broadcast_from_first(tuple(states))

    def _read(self, initial: Sequence[TrainState]) -> tuple[int | None, Sequence[TrainState]]:
        newest = {checkpoints.last_step for checkpoints in self._checkpoints}
        if len(newest) > 1:
            folders = ", ".join(f"'{workdir.path}'" for workdir in self._workdirs)
            raise UserError(
                f"{folders}: the last checkpoints of these runs are at different steps; train them "
                "one by one, or with config.seeds_per_program=1."
            )
        if newest == {None}:
            return None, initial
        pairs = zip(self._checkpoints, initial, strict=True)
        steps, states = zip(*(_restore(*pair) for pair in pairs), strict=True)
        if len(set(steps)) > 1:
            # A RunError: a study then trains the runs one by one.
            raise RunError(
                f"because of damage these runs resume from different steps, {sorted(set(steps))}; "
                "train them one by one."
            )
        return steps[0], states

    def begin(
        self, configs: Sequence[ConfigDict], data_set: DataSet, last_saved: int | None
    ) -> None:
        """Claims the folders for these configs, which are checked; opens their metrics and records.

        `last_saved` is the step that the runs resume from; None for new runs.
        """
        for workdir, config in zip(self._workdirs, configs, strict=True):
            run_config.write(workdir, config)
            if last_saved is None:  # the members of the splits when the run began, and no later
                membership.remember(workdir, data_set)
            writer = MetricsWriter(
                workdir, last_saved or 0, tensorboard="tensorboard" in config.train.writers
            )
            self._writers.append(self._stack.enter_context(writer))
            self._entries.append(
                TrainingEntry(workdir, self._start, resumes=last_saved is not None)
            )
        self._start_step = last_saved or 0
        self._update_entries(self._start_step)

    def _update_entries(self, step: int) -> None:
        for entry in self._entries:
            entry.update(step - self._start_step)

    def write(self, step: int, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes a row of metrics to each run."""
        for writer, row in zip(self._writers, rows, strict=True):
            writer.write(step, row)
        self._publish()

    def _publish(self) -> None:
        """Uploads what is new, unless a checkpoint is being written at the moment."""
        if not any(checkpoints.is_saving for checkpoints in self._checkpoints):
            for workdir in self._workdirs:
                workdir.publish()

    def save(
        self, step: int, states: Sequence[TrainState], metrics: Sequence[Mapping[str, float]]
    ) -> None:
        """Starts to save the state of each run (NumPy arrays); see `Checkpoints.save`.

        The metrics of a run, by which its best checkpoint is chosen, may be empty.
        """
        if not processes.is_first():
            return
        for checkpoints in self._checkpoints:  # the next save would wait, too
            checkpoints.wait()
        self._publish()
        for checkpoints, state, row in zip(self._checkpoints, states, metrics, strict=True):
            checkpoints.save(step, state.variables, _training_item(state), row)
        self._update_entries(step)

    def wait(self) -> None:
        """Waits until every save is complete on disk."""
        for checkpoints in self._checkpoints:
            checkpoints.wait()

    def barrier(self, where: str) -> None:
        """Waits for all processes; afterwards, all see what the first one has written."""
        for workdir in self._workdirs:
            workdir.barrier(where)

    def log_complete(self, text: str) -> None:
        """Logs for each run that there is nothing left to do."""
        for workdir in self._workdirs:
            logger.info(f"'{workdir.path}' is {text}.")

    def log_stop(self, step: int, num_steps: int) -> None:
        """Logs that a signal ended the run after a save, and acknowledges the signal."""
        folders = ", ".join(f"'{workdir.checkpoints}'" for workdir in self._workdirs)
        logger.info(
            f"{interrupts.signal_name() or 'SIGTERM'}: saved step {step} of {num_steps} in "
            f"{folders}; the same command resumes from there."
        )
        interrupts.acknowledge()


def _training_item(state: TrainState) -> dict[str, Tree]:
    """Returns what a checkpoint keeps of a state besides its variables."""
    return {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}


def _restore(checkpoints: Checkpoints, like: TrainState) -> tuple[int, TrainState]:
    step, variables, training = checkpoints.restore_newest(like.variables, _training_item(like))
    mutable = {name: tree for name, tree in variables.items() if name != "params"}
    return step, TrainState(params=variables["params"], mutable=mutable, **training)
