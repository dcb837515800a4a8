"""A detector with a calibration: p-values, decisions and explanations of scores."""

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from jaxad.calibration.calibration_set import CalibrationSet, drivers, read_calibration_set
from jaxad.calibration.conformal import format_rate
from jaxad.detector.detector import SCORE, Detector, score_columns
from jaxad.detector.exported import ExportedDetector
from jaxad.detector.load import load
from jaxad.errors import UserError
from jaxad.runtime.progress import counted
from jaxad.storage.locations import locate
from jaxad.storage.workdir import Workdir
from jaxad.types import Scores

logger = logging.getLogger(__name__)

#: Columns that only a calibration gives; without one their cells are empty.
_DECISION_COLUMNS = ("p_value", "anomalous", "driver")


@dataclasses.dataclass(frozen=True)
class CalibratedDetector:
    """A detector, and the normal images that its p-values and decisions are calibrated on.

    Attributes:
        detector: scores images.
        normals: the calibration set; if None, there are no p-values or decisions.
        rate: false-positive rate among normal patients.

    Raises:
        UserError: the rate is not in (0, 1), or the normal images do not support it.
    """

    detector: Detector
    normals: CalibrationSet | None
    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"--rate={self.rate:g}: choose one between 0 and 1.")
        if self.normals is not None:
            self.normals.calibration.patient_threshold(self.rate)

    @functools.cached_property
    def components(self) -> tuple[str, ...]:
        """Names of the score's components, in the order of tables."""
        image = np.zeros((1, *self.detector.image_shape), np.float32)
        return tuple(next(iter(self.detector.score_batches(image))).components)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the calibration set; "" without one."""
        if self.normals is None:
            return ""
        content = json.dumps(self.normals.as_json(), sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `rows`."""
        weights = {} if self.normals is None else self.detector.score_weights
        parts = (f"from_{name}" for name in weights)
        return (SCORE, *_DECISION_COLUMNS, *parts, *self.components)

    def table(
        self, columns: Mapping[str, Shaped[np.ndarray, " n"]]
    ) -> dict[str, Shaped[np.ndarray, " n"]]:
        """Returns `columns` with p-values, decisions and contributions, if there is a calibration.

        Args:
            columns: the score and its components; see `score_columns`.

        Raises:
            UserError: a score is not finite.
        """
        table: dict[str, np.ndarray] = {SCORE: np.asarray(columns[SCORE])}
        if self.normals is not None:
            scores = np.asarray(columns[SCORE], np.float64)
            p_values = self.normals.calibration.image_p_values(scores)
            parts = self.normals.contributions(columns, self.detector.score_weights)
            table["p_value"] = p_values
            table["anomalous"] = (p_values <= self.rate).astype(np.int32)
            table["driver"] = np.asarray(drivers(parts))
            table.update({f"from_{name}": values for name, values in parts.items()})
        table.update({name: np.asarray(columns[name]) for name in columns if name != SCORE})
        return table

    def rows(self, columns: Mapping[str, Shaped[np.ndarray, " n"]]) -> list[dict[str, Any]]:
        """Returns `table` as rows of text for a CSV file.

        Raises:
            UserError: a score is not finite.
        """
        table = self.table(columns)
        blank = [""] * len(table[SCORE])
        cells: dict[str, Sequence[Any]] = dict.fromkeys((SCORE, *_DECISION_COLUMNS), blank)
        for name, values in table.items():
            if name == "p_value" or name.startswith("from_"):
                cells[name] = [f"{value:.6g}" for value in values]
            elif values.dtype.kind == "f":
                cells[name] = [f"{value:.9g}" for value in values]
            else:
                cells[name] = values.tolist()
        return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]

    def patient(self, score: float) -> tuple[str, int | str]:
        """Returns p-value and decision of a patient by the largest score; "" uncalibrated."""
        if self.normals is None:
            return "", ""
        p_value = float(self.normals.calibration.patient_p_values(np.array([score]))[0])
        return f"{p_value:.6g}", int(p_value <= self.rate)


def load_calibrated(
    path: Path, rate: float | None, checkpoint: Literal["last", "best"] | int = "last"
) -> CalibratedDetector:
    """Loads the detector of a run or an exported file with its calibration.

    Without a calibration of this checkpoint, the detector only scores; a warning says so.

    Args:
        path: the run's folder, or the file.
        rate: false-positive rate; None: the run's own, or the smallest that its normal images
            support, with a warning.
        checkpoint: see `jaxad.load`.

    Raises:
        UserError: see `jaxad.load`; or the normal images do not support the rate.
    """
    detector = load(path, checkpoint)
    if isinstance(detector, ExportedDetector):
        normals = detector.calibration_set
    else:
        normals = read_calibration_set(Workdir(path).calibration)
    reason = ""
    if normals is None:
        reason = "there is no calibration"
    elif normals.checkpoint_step != detector.step:
        reason = (
            f"the calibration was made with checkpoint {normals.checkpoint_step}, "
            f"not {detector.step}"
        )
        normals = None
    if reason:
        logger.warning(
            f"{reason}: scores have no p-values or decisions; run --mode=evaluate or "
            "--mode=calibrate, which calibrate the last checkpoint."
        )
    if rate is None:
        rate = float(detector.config.evaluate.false_positive_rate)
        smallest = 0.0 if normals is None else normals.calibration.smallest_rate
        if normals is not None and rate < smallest:
            logger.warning(
                f"{counted(normals.calibration.num_patients, 'normal patient')}: too few for a "
                f"false-positive rate of {rate:g}; using {format_rate(smallest)}."
            )
            rate = smallest
    return CalibratedDetector(detector, normals, rate)


def explain(
    path: str | os.PathLike[str],
    scores: Scores,
    rate: float | None = None,
    checkpoint: Literal["last", "best"] | int = "last",
) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Compares scores with those of normal images: p-values, decisions and contributions.

    Args:
        path: a run's folder or an exported file.
        scores: the scores of N images, by its detector.
        rate: false-positive rate among normal patients; by default the run's own, or the smallest
            that its normal images support.
        checkpoint: the checkpoint that gave the scores, as in `jaxad.load`. If the calibration
            belongs to another one, there are no p-values and decisions, and a warning says so.

    Returns:
        Columns by name, each [N], as `--mode=score` writes them: `score`, `p_value`, `anomalous`,
        `driver`, `from_<component>` and the components; see `docs/scoring.md`.

    Raises:
        UserError: there is no run, or its normal images do not support the rate.
    """
    return load_calibrated(locate(path), rate, checkpoint).table(score_columns(scores))
