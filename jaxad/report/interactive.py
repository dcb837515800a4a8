"""What a reader works with: their own thresholds, patients, and the data that scripts read.

Scripts count and look up; every formula (p-values, best F1, the decisions of the start) is here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.ticker import MaxNLocator

from jaxad.calibration.conformal import PValueSteps, group_maxima
from jaxad.detector.detector import SCORE
from jaxad.evaluate import thresholds
from jaxad.evaluate.score_table import ScoreTable
from jaxad.report.run_files import SplitFiles

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]

IMAGE, PATIENT = UNITS = ("image", "patient")
#: The histogram's measures, in the units of its view box.
_WIDTH, _HEIGHT = 640, 150


@dataclasses.dataclass(frozen=True)
class Unit:
    """What is decided on: images, or patients by the largest of their scores.

    Attributes:
        labels: 1 = anomalous, 0 = normal.
        scores: finite.
        steps: p-values against normal ones; None without a calibration.
        rate: of false positives among normal patients that is granted; None likewise.
        threshold: to begin with: that of the rate; without a calibration the best on these labels.
        best: the threshold whose F1 is best on these labels; None of one class alone.
    """

    labels: Labels
    scores: Scalars
    steps: PValueSteps | None
    rate: float | None
    threshold: float
    best: float | None


def interactive_view(files: SplitFiles, rate: float) -> dict[str, Any] | None:
    """Histograms, patients and the data of one split; None where it has no scores.

    Args:
        files: of the split.
        rate: of false positives that decisions are asked for.
    """
    table = files.table
    if table is None or not len(table):
        return None
    names, groups = np.unique(np.asarray(table.groups), return_inverse=True)
    units = _units(files, table, groups, rate)
    return {
        "units": {
            name: {
                "threshold": unit.threshold,
                "best": unit.best,
                "histogram": _histogram(unit),
            }
            for name, unit in units.items()
        },
        "rate": rate,
        "calibration": _calibration(files),
        "has_normal_patients": bool((units[PATIENT].labels == 0).any()),
        "patients": _patients(table, names.tolist(), groups, units[PATIENT]),
        "data": _data(table, names.tolist(), groups, units, rate),
    }


def _units(files: SplitFiles, table: ScoreTable, groups: Labels, rate: float) -> dict[str, Unit]:
    scores = table.columns[SCORE]
    patient_labels = group_maxima(table.labels.astype(np.float64), groups).astype(np.int64)
    calibration = None if files.stored is None else files.stored.calibration
    granted = None if calibration is None else max(rate, calibration.smallest_rate)

    def unit(labels: Labels, scores: Scalars, steps: PValueSteps | None) -> Unit:
        best = None
        if len(np.unique(labels)) == 2:
            best = thresholds.best_f1(labels, scores).threshold
        if steps is not None and granted is not None:
            threshold = steps.threshold(granted)
        else:
            threshold = float(scores.max()) if best is None else best
        return Unit(labels, scores, steps, granted, threshold, best)

    return {
        IMAGE: unit(table.labels, scores, None if calibration is None else calibration.image_steps),
        PATIENT: unit(
            patient_labels,
            group_maxima(scores, groups),
            None if calibration is None else calibration.patient_steps,
        ),
    }


def _calibration(files: SplitFiles) -> dict[str, Any] | None:
    """What is said of the normal images that thresholds come from."""
    if files.stored is None:
        return None
    return {
        "name": files.stored.name,
        "patients": files.stored.calibration.num_patients,
        "smallest_rate": files.stored.calibration.smallest_rate,
        "images_are_patients": files.stored.images_are_patients,
    }


def _patients(
    table: ScoreTable, names: list[str], groups: Labels, unit: Unit
) -> list[dict[str, Any]]:
    """The patients, those with the highest scores first."""
    scores = table.columns[SCORE]
    slices, anomalous = np.bincount(groups), np.bincount(groups, table.labels).astype(int)
    # The first of equal ones.
    order = np.lexsort((np.arange(len(scores)), -scores))
    highest = {int(groups[row]): int(row) for row in reversed(order.tolist())}
    p_values = None if unit.steps is None else unit.steps.at(unit.scores)
    return [
        {
            "number": int(number),
            "name": names[number],
            "label": int(unit.labels[number]),
            "slices": int(slices[number]),
            "anomalous": int(anomalous[number]),
            "score": float(unit.scores[number]),
            "slice": table.ids[highest[int(number)]],
            "position": None
            if table.positions is None
            else int(table.positions[highest[int(number)]]),
            "p_value": None if p_values is None else float(p_values[number]),
            "called": bool(unit.scores[number] > unit.threshold),
        }
        for number in np.argsort(-unit.scores, kind="stable")
    ]


def _data(
    table: ScoreTable, names: list[str], groups: Labels, units: Mapping[str, Unit], rate: float
) -> dict[str, Any]:
    """For the scripts: `slices` and `patients` with their scores and labels, and p-values."""
    return {
        "slices": {
            "id": table.ids,
            "patient": groups.tolist(),
            "position": None if table.positions is None else table.positions.tolist(),
        },
        "patients": names,
        "rate": rate,
        "units": {
            name: {
                "label": unit.labels.tolist(),
                "score": unit.scores.tolist(),
                "best": unit.best,
                "steps": None
                if unit.steps is None
                else {
                    "scores": unit.steps.scores.tolist(),
                    "p_values": unit.steps.p_values.tolist(),
                },
            }
            for name, unit in units.items()
        },
    }


def _histogram(unit: Unit) -> dict[str, Any]:
    """Shares of each class by score, as paths in a box of `width` times `height`."""
    low, high = float(unit.scores.min()), float(unit.scores.max())
    if low == high:
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
    edges = np.linspace(low, high, 41 if len(unit.scores) >= 200 else 21)
    shares = {
        name: np.histogram(chosen, edges)[0] / len(chosen)
        for label, name in enumerate(("normal", "anomalous"))
        if len(chosen := unit.scores[unit.labels == label])
    }
    top = max(float(share.max()) for share in shares.values())
    xs = np.linspace(0, _WIDTH, len(edges))
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "low": low,
        "high": high,
        "classes": [
            {
                "name": name,
                "count": int((unit.labels == (name == "anomalous")).sum()),
                "path": _stairs(xs, _HEIGHT * (1 - 0.95 * share / top)),
            }
            for name, share in shares.items()
        ],
        "ticks": [
            {"x": round(_WIDTH * (tick - low) / (high - low), 2), "text": f"{tick:.6g}"}
            for tick in ticks
        ],
        "threshold": round(_WIDTH * (unit.threshold - low) / (high - low), 2),
    }


def _stairs(xs: Float[np.ndarray, " edges"], ys: Float[np.ndarray, " bins"]) -> str:
    """The outline of a histogram down to its base line, as an SVG path."""
    steps = "".join(f"V{y:.1f}H{x:.1f}" for x, y in zip(xs[1:], ys, strict=True))
    return f"M0 {_HEIGHT}{steps}V{_HEIGHT}Z"
