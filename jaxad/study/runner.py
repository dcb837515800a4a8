"""Runs a study: trains and evaluates its unfinished runs, then writes its tables."""

import contextlib
import logging
import os
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.evaluate.evaluation import evaluate_splits
from jaxad.evaluate.metrics import load_metrics, union
from jaxad.evaluate.references import ReferenceScores
from jaxad.report.page import write_report
from jaxad.runtime import interrupts
from jaxad.runtime.parallel import split_cpu, warn_of_crowded_cpu
from jaxad.storage import history
from jaxad.storage.workdir import Workdir, atomic_write
from jaxad.study.files import write_results
from jaxad.study.heat_map import check_heat_map
from jaxad.study.plan import PlannedRun, Runs, plan, sizes
from jaxad.train import checks, early_stopping, initial_weights
from jaxad.train.loop import train_seeds
from jaxad.train.program import num_train_steps
from jaxad.train.tracking import tracked

logger = logging.getLogger(__name__)


def run_study(
    config: ConfigDict, workdir: str | os.PathLike[str], *, print_table: bool = True
) -> bool:
    """Trains and evaluates every run that is not finished, then writes the tables.

    An interrupted run resumes from its last checkpoint. If a run fails, the others continue, and
    the failure is raised at the end.

    Args:
        config: see `jaxad.config.study`.
        workdir: the folder of the study; created if it does not exist.
        print_table: whether to log `table.md`, too.

    Returns:
        True if all runs are complete, False if a signal stopped training early.

    Raises:
        UserError: the config is invalid, or a run's folder holds a run with another config.
        RunError: runs failed; the tables are written without them.
    """
    if not config_lib.is_study(config):
        raise UserError(
            "--mode=study: the config describes a single run; use one of configs/studies/."
        )
    folder = Workdir(workdir)
    folder.check_writable(for_checkpoints=True)
    if folder.config.exists():
        raise UserError(
            f"workdir '{folder.path}' holds a single run; choose another --workdir for a study."
        )
    planned = plan(config, folder)
    runs = [run for seeds in planned.values() for run in seeds]
    data = runs[0].config.data  # all experiments have the same data (`jaxad.config.study`)
    for run in runs:
        if run.workdir.config.exists():
            data = _check_resumes(run, folder)
    split_cpu(runs[0].config.cpu_devices)
    firsts = [first for first, *_ in planned.values()]  # other runs differ in their seed alone
    for first in firsts:
        checks.check(first.config, is_of_study=True)
        initial_weights.check(first.config, first.workdir)
        early_stopping.check(first.config, min(len(config.seeds), int(config.seeds_per_program)))
    union(load_metrics(first.config) for first in firsts)
    check_heat_map(config, {first.experiment: first.config for first in firsts})
    with folder.lock():
        with atomic_write(folder.study) as file:
            file.write(config_lib.to_json(config.copy_and_resolve_references()))
        data_set = DataSet(data)
        data_set.check()
        if note := data_set.describe_unknown_patients():
            logger.info(note)
        warn_of_crowded_cpu()
        for run in runs:
            membership.check(run.workdir, data_set)
        _log_sizes(planned)
        work = _Work(data_set)
        num_finished = sum(work.is_finished(run) for run in runs)
        logger.info(f"{num_finished} of {len(runs)} runs are finished.")
        for seeds in planned.values():
            for group in work.groups(seeds, int(config.seeds_per_program)):
                interrupts.check()
                folder.publish(now=True)  # a bucket that cannot be written fails all runs
                if not work.run_group(group):
                    return False
            # The next experiment does not use the programs of this one.
            jax.clear_caches()
        finished = {
            name: done
            for name, seeds in planned.items()
            if (done := [run for run in seeds if work.is_finished(run)])
        }
        if finished:
            write_results(
                config, folder, finished, data_set, work.references, print_table=print_table
            )
    if work.failures:
        raise RunError(f"{len(work.failures)} runs failed: {' | '.join(work.failures)}")
    return True


def _check_resumes(run: PlannedRun, folder: Workdir) -> ConfigDict:
    """Returns the `config.data` of a run that began, with what it decided from the data.

    Raises:
        UserError: the folder of the run holds a run with another config.
    """
    saved = run_config.read(run.workdir)
    config = run_config.with_decisions(run.config, saved.data)
    differences = config_lib.difference(config, saved)
    if differences:
        raise UserError(
            f"workdir '{folder.path}' holds this study with another config; choose another "
            f"--workdir or undo the difference: {'; '.join(differences)} (in '{run.experiment}')."
        )
    return config.data


class _Work:
    """The work on the runs of a study; `failures` has one line per failed run."""

    def __init__(self, data_set: DataSet):
        self.references = ReferenceScores(data_set)
        self.failures: list[str] = []
        self._data_set = data_set

    def is_finished(self, run: PlannedRun) -> bool:
        """Whether a run needs no more work."""
        num_steps = num_train_steps(run.config, len(self._data_set.split("train")))
        step = run.last_step() if run.config.train.early_stopping else 0
        if early_stopping.read(run.config, run.workdir, step).is_due:
            num_steps = step
        return run.is_finished(self._data_set.test_split_names, num_steps)

    def groups(self, runs: Sequence[PlannedRun], size: int) -> list[list[PlannedRun]]:
        """The unfinished runs of an experiment, in groups of up to `size` at the same step.

        Only runs at the same step can train as one program. A kill between the checkpoints or
        evaluations of a group leaves its runs at different steps.
        """
        by_step: dict[int, list[PlannedRun]] = {}
        for run in runs:
            if not self.is_finished(run):
                by_step.setdefault(run.last_step(), []).append(run)
        return [
            together[start : start + size]
            for together in by_step.values()
            for start in range(0, len(together), size)
        ]

    def run_group(self, group: Sequence[PlannedRun]) -> bool:
        """Trains a group as one program and evaluates its runs; False if a signal stopped it.

        If a group fails, its runs continue one by one, so that one failing seed does not affect
        the others.
        """
        logger.info(f"\n== {group[0].experiment}: {', '.join(f'seed {r.seed}' for r in group)} ==")
        try:
            return self._train_and_evaluate(group)
        except RunError as error:
            if len(group) > 1:
                return all(self.run_group([run]) for run in group)
            self.failures.append(f"{group[0].experiment}, seed {group[0].seed}: {error}")
            logger.warning(f"failed: {error}")
            return True

    def _train_and_evaluate(self, group: Sequence[PlannedRun]) -> bool:
        with contextlib.ExitStack() as stack:
            for run in group:
                run_config.check(run.workdir, run.config)
                stack.enter_context(run.workdir.lock())
            configs, folders = [run.config for run in group], [run.workdir for run in group]
            stack.enter_context(tracked(configs, folders))
            if not train_seeds(configs, folders, self._data_set):
                return False
            for run in group:
                with history.evaluation(run.workdir, self._data_set.test_split_names):
                    evaluate_splits(run.workdir, self._data_set, self.references)
                write_report(run.workdir)
        return True


def _log_sizes(runs: Runs) -> None:
    """Logs parameters, latents and other state of all systems as a table."""
    logger.info(f"{'experiment':24}{'parameters':>12}{'latents':>9}{'other state':>13}")
    for name, size in sizes(runs).items():
        logger.info(f"{name:24}{size.parameters:>12,}{size.latents:>9,}{size.state:>13,}")
