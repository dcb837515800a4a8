"""The files of a run that a report is made of."""

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
from jaxad.storage.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """What a run keeps of one test split.

    Attributes:
        name: of the split.
        metrics: `metrics.json`; empty where there is none.
        table: `scores.csv`, rows whose score is not finite left out; None where there is none.
        num_not_finite: rows that were left out.
        examples: `examples.npz`; None where there is none.
        stored: the run's calibration, where it is of the checkpoint that scored the split.
    """

    name: str
    metrics: dict[str, Any]
    table: ScoreTable | None
    num_not_finite: int
    examples: Examples | None
    stored: CalibrationSet | None


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What a run keeps.

    Attributes:
        workdir: its folder.
        config: its config.
        splits: the test splits that have a folder, by name.
    """

    workdir: Workdir
    config: ConfigDict
    splits: dict[str, SplitFiles]

    @property
    def rate(self) -> float:
        """Of false positives, that its decisions are asked for."""
        return float(self.config.evaluate.false_positive_rate)


def read_run(workdir: Workdir) -> RunFiles:
    """Reads what there is.

    Raises:
        UserError: the folder is no run's, or a file in it is damaged.
    """
    config = run_config.read(workdir)
    evaluations = workdir.path / "eval"
    folders = sorted(evaluations.iterdir()) if evaluations.is_dir() else []
    stored = read_calibration_set(workdir)
    splits = {folder.name: _read_split(folder, stored) for folder in folders if folder.is_dir()}
    return RunFiles(workdir, config, splits)


def _read_split(folder: Path, stored: CalibrationSet | None) -> SplitFiles:
    metrics = _read(folder / "metrics.json", _read_json) or {}
    table = _read(folder / "scores.csv", read_score_table)
    num_not_finite = 0
    if table is not None:
        finite = np.isfinite(table.columns[SCORE])
        num_not_finite = int((~finite).sum())
        table = table.rows(np.flatnonzero(finite))
    is_of_it = stored is not None and stored.checkpoint_step == metrics.get("checkpoint_step")
    return SplitFiles(
        name=folder.name,
        metrics=metrics,
        table=table,
        num_not_finite=num_not_finite,
        examples=_read(folder / "examples.npz", read_examples),
        stored=stored if is_of_it else None,
    )


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """What the reader makes of the file, None where there is no file."""
    try:
        return reader(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' cannot be read ({error!r}); evaluate the run again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
