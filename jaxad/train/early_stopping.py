"""Early stopping: training ends once the validation loss has stopped falling.

The state follows from the validation losses in `metrics.jsonl` alone, so that a run that resumes
stops where an uninterrupted one does.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.storage.checkpoint import VALIDATION_LOSS
from jaxad.storage.workdir import Workdir
from jaxad.train.writer import read_metrics

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class EarlyStopping:
    """Tells when `patience` validations in a row had no lower loss than the best before them.

    Losses are compared as float32, which processes exchange. A patience of 0 never stops.

    Attributes:
        patience: `config.train.early_stopping`.
        best: the lowest loss so far.
        waited: validations since then.
        last_step: step of the last validation; 0 if there was none.
    """

    patience: int
    best: float = float("inf")
    waited: int = 0
    last_step: int = 0

    def add(self, step: int, loss: float) -> None:
        """Adds the loss of a validation; steps increase."""
        loss = float(np.float32(loss))
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best, self.last_step = min(loss, self.best), step

    @property
    def is_due(self) -> bool:
        """Whether training is to stop now."""
        return 0 < self.patience <= self.waited


def check(config: ConfigDict, num_seeds: int) -> None:
    """Raises a UserError if several seeds that train as one program are to stop early."""
    if num_seeds > 1 and config.train.early_stopping:
        raise UserError(
            "config.train.early_stopping: seeds that train as one program cannot stop at different "
            "steps; set config.seeds_per_program=1."
        )


def warn_if_useless(config: ConfigDict, num_validations: int) -> None:
    """Warns if a run has too few validations for early stopping to end it before its last step."""
    # The first validation is the best one so far; the last one is at the end of the run.
    patience = config.train.early_stopping
    if patience and num_validations < patience + 2:
        logger.warning(
            f"warning: the run has {num_validations} validation{'s' * (num_validations != 1)}, so "
            f"early_stopping={patience} cannot stop it; lower config.train.checkpoint_every_steps."
        )


def replay(
    patience: int, rows: Sequence[Mapping[str, int | float]], step: int | None = None
) -> EarlyStopping:
    """Returns the state after the rows of a `metrics.jsonl` up to `step`."""
    stopping = EarlyStopping(patience)
    for row in rows:
        if VALIDATION_LOSS in row and (step is None or row["step"] <= step):
            stopping.add(int(row["step"]), row[VALIDATION_LOSS])
    return stopping


def read(config: ConfigDict, workdir: Workdir, step: int) -> EarlyStopping:
    """Returns the state of a run after `step` updates; every process must call it."""
    stopping = EarlyStopping(config.train.early_stopping)
    if not stopping.patience:
        return stopping
    if processes.is_first():
        stopping = replay(stopping.patience, read_metrics(workdir.metrics), step)
    best, waited, last = processes.broadcast_from_first(
        (np.float32(stopping.best), np.int32(stopping.waited), np.int32(stopping.last_step))
    )
    return EarlyStopping(stopping.patience, float(best), int(waited), int(last))
