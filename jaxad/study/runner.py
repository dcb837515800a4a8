"""Runs what a study still lacks, then writes its tables."""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.evaluate.evaluation import evaluate_splits
from jaxad.evaluate.trivial import TrivialScores
from jaxad.report.page import write_report
from jaxad.runtime import interrupts
from jaxad.runtime.parallel import split_cpu, warn_of_crowded_cpu
from jaxad.storage.workdir import Workdir, atomic_write
from jaxad.study.files import write_results
from jaxad.study.plan import PlannedRun, plan, sizes
from jaxad.train import checks
from jaxad.train.loop import train_seeds
from jaxad.train.program import num_train_steps

logger = logging.getLogger(__name__)


def run_study(
    config: ConfigDict, workdir: str | os.PathLike[str], *, print_table: bool = True
) -> bool:
    """Trains and evaluates every run that is not finished, then writes the tables.

    A run is finished once its report is written; what a kill leaves behind goes on from its last
    checkpoint. A run that fails is named at the end; the others go on without it.

    Args:
        config: see `jaxad.config.study`.
        workdir: the study's folder; made if it is not there.
        print_table: whether `table.md` is printed, too.

    Returns:
        True when all is done, False when a signal ended a training early.

    Raises:
        UserError: a config cannot be, or a run's folder holds a run of another config.
        RunError: runs failed; the tables are written without them.
    """
    if not config_lib.is_study(config):
        raise UserError("--mode=study: this config is of one run; name one of configs/studies/.")
    folder = Workdir(workdir)
    folder.check_writable(for_checkpoints=True)
    if folder.config.exists():
        raise UserError(
            f"workdir '{folder.path}' holds a single run; choose another --workdir for a study."
        )
    planned = plan(config, folder)
    runs = [run for of_experiment in planned.values() for run in of_experiment]
    for run in runs:
        if run.workdir.config.exists():
            _check_resumes(run, folder)
    split_cpu(runs[0].config.cpu_devices)
    for of_experiment in planned.values():
        checks.check(of_experiment[0].config)  # the others differ in their seed alone
    with folder.lock():
        with atomic_write(folder.study) as file:
            file.write(config_lib.to_json(config.copy_and_resolve_references()))
        # All experiments have the same data (`jaxad.config.study`).
        data_set = DataSet(runs[0].config.data)
        data_set.check()
        warn_of_crowded_cpu()
        for run in runs:
            membership.check(run.workdir, data_set)
        _print_sizes(planned)
        work = _Work(data_set, TrivialScores(data_set))
        done_before = sum(work.is_finished(run) for run in runs)
        logger.info(f"{done_before} of {len(runs)} runs are finished.")
        for of_experiment in planned.values():
            for group in _groups(int(config.seeds_per_program), of_experiment, work):
                interrupts.check()
                if not work.do(group):
                    return False
            # Programs of one experiment are of no use to the next.
            jax.clear_caches()
        finished = {
            name: done
            for name, of_experiment in planned.items()
            if (done := [run for run in of_experiment if work.is_finished(run)])
        }
        if finished:
            write_results(config, folder, finished, data_set, work.trivial, print_table=print_table)
    if work.failures:
        raise RunError(f"{len(work.failures)} runs failed: {' | '.join(work.failures)}")
    return True


def _check_resumes(run: PlannedRun, folder: Workdir) -> None:
    """Raises a UserError where a run of the study's folder has another config."""
    differences = config_lib.difference(run.config, run_config.read(run.workdir))
    if differences:
        raise UserError(
            f"workdir '{folder.path}' holds this study with another config; choose another "
            f"--workdir or undo the difference: {'; '.join(differences)} (in '{run.experiment}')."
        )


class _Work:
    """What is to be done with runs, and what came of it.

    Attributes:
        trivial: of the study's data.
        failures: one line per run that failed.
    """

    def __init__(self, data_set: DataSet, trivial: TrivialScores):
        self.trivial = trivial
        self.failures: list[str] = []
        self._data_set = data_set

    def is_finished(self, run: PlannedRun) -> bool:
        num_steps = num_train_steps(run.config, len(self._data_set.split("train")))
        return run.is_finished(self._data_set.test_split_names, num_steps)

    def do(self, group: Sequence[PlannedRun]) -> bool:
        """Trains a group as one program and evaluates each of its runs; False when stopped.

        Where a group fails, each of its runs goes on by itself: one seed's failure is not the
        others'.
        """
        logger.info(f"\n== {group[0].experiment}: {', '.join(f'seed {r.seed}' for r in group)} ==")
        try:
            return self._train_and_evaluate(group)
        except RunError as error:
            if len(group) > 1:
                return all(self.do([run]) for run in group)
            self.failures.append(f"{group[0].experiment}, seed {group[0].seed}: {error}")
            logger.info(f"failed: {error}")
            return True

    def _train_and_evaluate(self, group: Sequence[PlannedRun]) -> bool:
        with contextlib.ExitStack() as stack:
            for run in group:
                run_config.check(run.workdir, run.config)
                stack.enter_context(run.workdir.lock())
            configs, folders = [run.config for run in group], [run.workdir for run in group]
            if not train_seeds(configs, folders, self._data_set):
                return False
            for run in group:
                evaluate_splits(run.workdir, self._data_set, self.trivial)
                write_report(run.workdir)
        return True


def _groups(size: int, runs: Sequence[PlannedRun], work: _Work) -> list[list[PlannedRun]]:
    """The unfinished runs of an experiment, up to `size` together.

    Only runs that have come equally far train as one program: a kill can fall between the saves
    of a group, or between the evaluations of its runs.
    """
    by_progress: dict[int, list[PlannedRun]] = {}
    for run in runs:
        if not work.is_finished(run):
            by_progress.setdefault(run.last_step(), []).append(run)
    return [
        together[start : start + size]
        for together in by_progress.values()
        for start in range(0, len(together), size)
    ]


def _print_sizes(planned: Mapping[str, Sequence[PlannedRun]]) -> None:
    """Parameters and latents of the systems side by side."""
    logger.info(f"{'experiment':24}{'parameters':>12}{'latents':>9}{'other state':>13}")
    for name, size in sizes(planned).items():
        logger.info(f"{name:24}{size.parameters:>12,}{size.latents:>9,}{size.state:>13,}")
