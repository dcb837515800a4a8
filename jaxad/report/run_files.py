"""The files of a run that its report is made from."""

import csv
import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad.calibration.calibration_set import CalibrationSet, read_calibration_set
from jaxad.config import run_config
from jaxad.detector.detector import SCORE
from jaxad.errors import UserError
from jaxad.evaluate.examples import Examples, read_examples
from jaxad.evaluate.score_table import ScoreTable, read_score_table
from jaxad.storage import history
from jaxad.storage.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """The evaluation of a run on one test split; None or empty where a file does not exist.

    Attributes:
        metrics: `metrics.json`.
        table: `scores.csv` without the rows whose score is not finite.
        num_not_finite: the number of those rows.
        examples: `examples.npz`.
        stored: the calibration of the decisions: the evaluation's own, or the run's; None if it was
            made with another checkpoint than the scores.
    """

    name: str
    metrics: dict[str, Any]
    table: ScoreTable | None
    num_not_finite: int
    examples: Examples | None
    stored: CalibrationSet | None


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The folder of a run and what it holds.

    Attributes:
        splits: the evaluated test splits by name, those of the run before those of other sites.
        stored: the run's calibration; None if it has none.
        history: `history.json`; {} if there is none.
    """

    workdir: Workdir
    config: ConfigDict
    splits: dict[str, SplitFiles]
    stored: CalibrationSet | None
    history: dict[str, Any]

    @property
    def newest_step(self) -> int:
        """Step of the newest checkpoint that exists, was evaluated or calibrated; 0 if none."""
        steps = [files.metrics.get("checkpoint_step", 0) for files in self.splits.values()]
        if self.stored is not None:
            steps.append(self.stored.checkpoint_step)
        if self.workdir.checkpoints.is_dir():
            # Orbax gives a checkpoint its name, the step, only once it is complete.
            names = [path.name for path in self.workdir.checkpoints.iterdir()]
            steps += [int(name) for name in names if name.isdecimal()]
        return max(steps, default=0)

    @property
    def lacks_test_splits(self) -> bool:
        """Whether the run was evaluated with data that have no test split."""
        return self.history.get("evaluation", {}).get("splits") == [] and not self.splits


def read_run(workdir: Workdir, config: ConfigDict | None = None) -> RunFiles:
    """Reads the files of a run that exist.

    `config` is that of the run if its folder has none, as the results of an exported file.

    Raises:
        UserError: the folder does not hold a run, or a file in it is damaged.
    """
    config = run_config.read(workdir) if config is None else config
    evaluations = workdir.path / "eval"
    folders = [*evaluations.iterdir()] if evaluations.is_dir() else []
    # Names of other sites do not begin with `test`.
    folders.sort(key=lambda path: (not path.name.startswith("test"), path.name))
    stored = read_calibration_set(workdir.calibration)
    splits = {folder.name: _read_split(folder, stored) for folder in folders if folder.is_dir()}
    return RunFiles(workdir, config, splits, stored, history.read(workdir))


def _read_split(folder: Path, stored: CalibrationSet | None) -> SplitFiles:
    metrics = _read(folder / "metrics.json", lambda path: json.loads(path.read_text("utf-8"))) or {}
    table = _read(folder / "scores.csv", read_score_table)
    num_not_finite = 0
    if table is not None:
        finite = np.isfinite(table.columns[SCORE])
        num_not_finite = int((~finite).sum())
        table = table.rows(np.flatnonzero(finite))
    stored = read_calibration_set(folder / "calibration.json") or stored
    if stored is not None and stored.checkpoint_step != metrics.get("checkpoint_step"):
        stored = None
    examples = _read(folder / "examples.npz", read_examples)
    return SplitFiles(folder.name, metrics, table, num_not_finite, examples, stored)


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """What `reader` makes of a file; None if the file does not exist."""
    try:
        return reader(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise UserError(
            f"'{path}' cannot be read ({error!r}); write it again with --mode=evaluate."
        ) from error
