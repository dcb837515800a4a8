"""What a launch does, by mode; the command line and notebooks both come here."""

import os
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from jaxad import experiment
from jaxad.data.sources import DataSet
from jaxad.evaluate.evaluation import evaluate_splits
from jaxad.report.page import write_report
from jaxad.train.loop import train as train_run
from jaxad.workdir import Workdir


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> bool:
    """Trains, or goes on training, in a folder of its own.

    Args:
        config: the run.
        workdir: its folder; made if it is not there.

    Returns:
        True when training is complete, False when SIGTERM ended it early.
    """
    run = Workdir(workdir)
    run.check(config)
    # What cannot be is told before data are generated for it.
    experiment.check(config)
    return train_run(config, run, DataSet(config.data))


def evaluate(config: ConfigDict, workdir: str | os.PathLike[str]) -> bool:
    """Evaluates the last checkpoint on every test split and writes the report."""
    run = Workdir(workdir)
    run.check(config)
    evaluate_splits(run, DataSet(config.data))
    print(f"report: {write_report(run)}", flush=True)
    return True


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> bool:
    """Trains, evaluates every test split and writes the report; goes on where it was stopped."""
    return train(config, workdir) and evaluate(config, workdir)


MODES: Mapping[str, Callable[[ConfigDict, str | os.PathLike[str]], bool]] = {
    "fit": fit,
    "train": train,
    "evaluate": evaluate,
}
