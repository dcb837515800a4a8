"""Runs what a study still lacks, then writes its tables."""

import contextlib
import os
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad import experiment
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.evaluate.evaluation import evaluate_splits
from jaxad.evaluate.trivial import TrivialScores
from jaxad.parallel import split_cpu
from jaxad.report.page import write_report
from jaxad.study.plan import PlannedRun, plan, sizes
from jaxad.study.results import make_table
from jaxad.study.sheet import contact_sheet
from jaxad.study.tables import comma_separated, markdown
from jaxad.train.loop import train_seeds
from jaxad.train.program import num_train_steps
from jaxad.workdir import Workdir, atomic_write


def run_study(config: ConfigDict, workdir: str | os.PathLike[str]) -> bool:
    """Trains and evaluates every run that is not finished, then writes the tables.

    A run is finished once its report is written; what a kill leaves behind goes on from its last
    checkpoint. A run that fails is named at the end; the others go on without it.

    Args:
        config: see `jaxad.config.study`.
        workdir: the study's folder; made if it is not there.

    Returns:
        True when all is done, False when SIGTERM ended it early.

    Raises:
        UserError: a config cannot be, or a run's folder holds a run of another config.
        RunError: runs failed; the tables are written without them.
    """
    if not config_lib.is_study(config):
        raise UserError("--mode=study: this config is of one run; name one of configs/studies/.")
    folder = Workdir(workdir)
    folder.check_writable()
    if folder.config.exists():
        raise UserError(
            f"workdir '{folder.path}' holds a single run; choose another --workdir for a study."
        )
    planned = plan(config, folder)
    runs = [run for of_experiment in planned.values() for run in of_experiment]
    for run in runs:
        if run.workdir.config.exists():
            run.workdir.check(run.config)
    split_cpu(runs[0].config.cpu_devices)
    for of_experiment in planned.values():
        for run in of_experiment:
            experiment.check(run.config)
    with folder.lock():
        with atomic_write(folder.path / "study.json") as file:
            file.write(config_lib.to_json(config.copy_and_resolve_references()))
        # All experiments have the same data (`jaxad.config.study`).
        data_set = DataSet(runs[0].config.data)
        data_set.check()
        _print_sizes(config)
        failures: list[str] = []
        trivial = TrivialScores(data_set)
        for name, of_experiment in planned.items():
            for group in _groups(config, of_experiment, data_set):
                print(f"\n== {name}: {', '.join(f'seed {run.seed}' for run in group)} ==")
                try:
                    if not _run(group, data_set, trivial):
                        return False
                except RunError as error:
                    failures.append(f"{name}: {error}")
                    print(f"failed: {error}", flush=True)
            # Programs of one experiment are of no use to the next.
            jax.clear_caches()
        finished = {
            name: done
            for name, of_experiment in planned.items()
            if (done := [run for run in of_experiment if _is_finished(run, data_set)])
        }
        if finished:
            _write_results(config, folder, finished, data_set, trivial)
    if failures:
        raise RunError(f"{len(failures)} runs failed: {' | '.join(failures)}")
    return True


def _is_finished(run: PlannedRun, data_set: DataSet) -> bool:
    num_steps = num_train_steps(run.config, len(data_set.split("train")))
    return run.is_finished(data_set.test_split_names, num_steps)


def _groups(
    config: ConfigDict, runs: Sequence[PlannedRun], data_set: DataSet
) -> list[list[PlannedRun]]:
    """The unfinished runs of an experiment, as many together as train as one program."""
    todo = [run for run in runs if not _is_finished(run, data_set)]
    size = int(config.seeds_per_program)
    return [todo[start : start + size] for start in range(0, len(todo), size)]


def _run(group: Sequence[PlannedRun], data_set: DataSet, trivial: TrivialScores) -> bool:
    """Trains a group as one program and evaluates each of its runs."""
    with contextlib.ExitStack() as stack:
        for run in group:
            run.workdir.check(run.config)
            stack.enter_context(run.workdir.lock())
        configs, folders = [run.config for run in group], [run.workdir for run in group]
        if not train_seeds(configs, folders, data_set):
            return False
        for run in group:
            evaluate_splits(run.workdir, data_set, trivial)
            write_report(run.workdir)
    return True


def _write_results(
    config: ConfigDict,
    folder: Workdir,
    finished: Mapping[str, Sequence[PlannedRun]],
    data_set: DataSet,
    trivial: TrivialScores,
) -> None:
    """`table.md`, `table.csv` and a contact sheet of each test split."""
    tables, sheets = [], {}
    shown = {name: runs[0] for name, runs in finished.items()}
    for split in data_set.test_split_names:
        tables.append(make_table(config, finished, data_set, trivial, split))
        if config.num_slices > 0:
            sheets[split] = f"figures/{split}.png"
            with atomic_write(folder.path / sheets[split], "wb") as file:
                file.write(contact_sheet(shown, data_set.split(split), config.num_slices))
    with atomic_write(folder.path / "table.csv") as file:
        file.write(comma_separated(config, tables))
    text = markdown(config, tables, sheets)
    with atomic_write(folder.path / "table.md") as file:
        file.write(text)
    print(f"\n{text}\ntables: {folder.path / 'table.md'}, {folder.path / 'table.csv'}", flush=True)


def _print_sizes(config: ConfigDict) -> None:
    """Parameters and latents of the systems side by side."""
    print(f"{'experiment':24}{'parameters':>12}{'latents':>9}{'other state':>13}")
    for name, size in sizes(config).items():
        print(f"{name:24}{size.parameters:>12,}{size.latents:>9,}{size.state:>13,}")
