"""Opens the folder of a run and its data, and checks both before a mode begins its work."""

import logging
import os

from ml_collections import ConfigDict

from jaxad.config import run_config
from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.runtime import interrupts
from jaxad.runtime.parallel import split_cpu, warn_of_crowded_cpu
from jaxad.storage.workdir import Workdir
from jaxad.train import checks, initial_weights

logger = logging.getLogger(__name__)


def open_run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    evaluates: bool = False,
    trains: bool = False,
) -> tuple[Workdir, ConfigDict]:
    """Opens the folder of a run; every process must call it.

    Returns the folder and the config, with what a run in the folder decided from its data
    (`run_config.with_decisions`).
    """
    run = Workdir(workdir)
    config = run_config.check(run, config, evaluates=evaluates, trains=trains)
    split_cpu(config.cpu_devices)
    run.check_shared()
    return run, config


def open_data(config: ConfigDict) -> DataSet:
    """Returns the data set of a run; a mistake in its fields or its test splits is reported."""
    if config.evaluate.metrics:
        from jaxad.evaluate.metrics import load_metrics

        load_metrics(config)
    data_set = DataSet(config.data)
    data_set.check()
    membership.check_processes(data_set)
    return data_set


def open_to_train(config: ConfigDict, run: Workdir) -> DataSet:
    """Returns the data set of a run that is going to be trained.

    The config is checked first, before data are generated or read, and bad test splits are reported
    before hours of training.
    """
    checks.check(config)
    initial_weights.check(config, run)
    data_set = open_data(config)
    if note := data_set.describe_unknown_patients():
        logger.info(note)
    warn_of_crowded_cpu()
    interrupts.check()
    return data_set
