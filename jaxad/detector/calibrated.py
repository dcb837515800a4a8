"""A detector with the scores of normal images: p-values, decisions and what drives scores."""

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

from jaxad.calibration import stored as calibration_lib
from jaxad.calibration.evidence import contributions, drivers
from jaxad.calibration.stored import StoredCalibration
from jaxad.detector.from_file import ExportedDetector
from jaxad.detector.load import load
from jaxad.detector.scorer import SCORE, Scorer, score_columns
from jaxad.errors import UserError
from jaxad.storage.paths import expand
from jaxad.storage.workdir import Workdir
from jaxad.types import Scores, group_numbers

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CalibratedDetector:
    """A detector and the normal images that its p-values and decisions are calibrated on.

    Attributes:
        scorer: gave the scores.
        stored: the normal images that decisions are calibrated on; without, there are none.
        rate: of false positives among normal patients.

    Raises:
        UserError: the normal images cannot support the rate.
    """

    scorer: Scorer
    stored: StoredCalibration | None
    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"--rate={self.rate:g}: give one between 0 and 1.")
        if self.stored is not None:
            self.stored.calibration.patient_threshold(self.rate)

    @functools.cached_property
    def components(self) -> tuple[str, ...]:
        """Names of the score's components, in the order of a table."""
        nothing = np.zeros((1, *self.scorer.image_shape), np.float32)
        return tuple(next(iter(self.scorer.score_batches(nothing))).components)

    @functools.cached_property
    def digest(self) -> str:
        """Of the calibration, which decisions depend on; "" without one."""
        if self.stored is None:
            return ""
        told = json.dumps(self.stored.as_json(), sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    @functools.cached_property
    def _means(self) -> dict[str, float]:
        assert self.stored is not None
        assert self.stored.evidence is not None
        return self.stored.evidence.means(group_numbers(self.stored.groups))

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table's rows, beside those that say which image it is."""
        weights = self.scorer.score_weights if self._explains else {}
        parts = tuple(f"from_{name}" for name in weights)
        return (SCORE, "p_value", "anomalous", "driver", *parts, *self.components)

    @property
    def _explains(self) -> bool:
        return self.stored is not None and self.stored.evidence is not None

    def table(
        self, columns: Mapping[str, Shaped[np.ndarray, " n"]]
    ) -> dict[str, Shaped[np.ndarray, " n"]]:
        """What is said of images, by their score and its components; see `columns`.

        What only normal images could tell is missing where there are none.

        Raises:
            UserError: a score is not finite.
        """
        found: dict[str, np.ndarray] = {SCORE: np.asarray(columns[SCORE])}
        if self.stored is not None:
            scores = np.asarray(columns[SCORE], np.float64)
            p_values = self.stored.calibration.image_p_values(scores)
            found["p_value"] = p_values
            found["anomalous"] = (p_values <= self.rate).astype(np.int32)
            if self._explains:
                parts = contributions(columns, self.scorer.score_weights, self._means)
                found["driver"] = np.asarray(drivers(parts))
                found.update({f"from_{name}": values for name, values in parts.items()})
        found.update({name: np.asarray(columns[name]) for name in columns if name != SCORE})
        return found

    def rows(self, columns: Mapping[str, Shaped[np.ndarray, " n"]]) -> list[dict[str, Any]]:
        """`table` as rows of texts, for a file; cells that it lacks are empty.

        Raises:
            UserError: a score is not finite.
        """
        table = self.table(columns)
        blank = [""] * len(table[SCORE])
        cells: dict[str, Sequence[Any]] = dict.fromkeys(
            (SCORE, "p_value", "anomalous", "driver"), blank
        )
        for name, values in table.items():
            if name == "p_value" or name.startswith("from_"):
                cells[name] = [f"{value:.6g}" for value in values]
            elif values.dtype.kind == "f":
                cells[name] = [f"{value:.9g}" for value in values]
            else:
                cells[name] = values.tolist()
        return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]

    def patient(self, score: float) -> tuple[Any, Any]:
        """p-value and decision of a patient, by the largest of their scores."""
        if self.stored is None:
            return "", ""
        p_value = float(self.stored.calibration.patient_p_values(np.array([score]))[0])
        return f"{p_value:.6g}", int(p_value <= self.rate)


def load_calibrated(
    path: Path, rate: float | None, checkpoint: Literal["last", "best"] | int = "last"
) -> CalibratedDetector:
    """The calibrated detector of a run's checkpoint, or of an exported file.

    Args:
        path: the run's folder, or the file.
        rate: of false positives; None: the run's own, or the smallest that its normal images
            support, which is told.
        checkpoint: see `jaxad.load`; decisions are of the one that was evaluated.

    Raises:
        UserError: see `jaxad.load`; or the normal images cannot support the rate.
    """
    scorer = load(path, checkpoint)
    stored = (
        scorer.calibration
        if isinstance(scorer, ExportedDetector)
        else calibration_lib.read(Workdir(path))
    )
    if stored is None:
        _tell(
            "there is no calibration: scores come without p-values and decisions; --mode=evaluate "
            "or --mode=calibrate makes one."
        )
    elif stored.checkpoint_step != scorer.step:
        _tell(
            f"the calibration is of checkpoint {stored.checkpoint_step}, not of {scorer.step}: "
            "scores come without p-values and decisions; --mode=evaluate or --mode=calibrate makes "
            "one of the last checkpoint."
        )
        stored = None
    elif stored.evidence is None:
        _tell(
            "the calibration is of an older version: what drives scores is not told; "
            "--mode=evaluate writes it anew."
        )
    own = float(scorer.config.evaluate.false_positive_rate)
    if rate is None and stored is not None and own < stored.calibration.smallest_rate:
        smallest = stored.calibration.smallest_rate
        _tell(
            f"{stored.calibration.num_patients} normal patients cannot support a false-positive "
            f"rate of {own:g}; {smallest:.3g} is taken."
        )
        own = smallest
    return CalibratedDetector(scorer, stored, own if rate is None else rate)


def _tell(line: str) -> None:
    logger.warning(line)


def explain(
    path: str | os.PathLike[str],
    scores: Scores,
    rate: float | None = None,
    checkpoint: Literal["last", "best"] | int = "last",
) -> dict[str, Shaped[np.ndarray, " n"]]:
    """What scores mean against normal images: p-values, decisions and what drove each score.

    Args:
        path: a run's folder or an exported file.
        scores: of N images, as its detector gave them.
        rate: of false positives among normal patients; by default the run's, or the smallest that
            its normal images support.
        checkpoint: that gave the scores, as in `jaxad.load`. Where another one was evaluated there
            are no p-values and decisions, which a warning says.

    Returns:
        Columns by name, each [N], as `--mode=score` writes them: `score`, `p_value`, `anomalous`,
        `driver`, `from_<component>` and the components; see `docs/scoring.md`.

    Raises:
        UserError: no run, or its normal images cannot support the rate.
    """
    return load_calibrated(expand(path), rate, checkpoint).table(score_columns(scores))
