"""The interactive sections, thresholds and patients, and the data that the page's scripts read.

Scripts only count and look up; every formula (p-values, best F1, initial decisions) is evaluated
here.
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
from jaxad.report.figures import class_histograms
from jaxad.report.run_files import SplitFiles

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]

IMAGE, PATIENT = "image", "patient"
#: The size of the histogram, in units of its view box.
_WIDTH, _HEIGHT = 640, 150


@dataclasses.dataclass(frozen=True)
class Unit:
    """The units that decisions are made for: images, or patients by their largest score.

    Attributes:
        steps: p-values against normal units; None without a calibration.
        threshold: the initial threshold: from the calibration at the requested rate; without a
            calibration `best`, or the largest score.
        best: the threshold with the best F1 on these labels; None if there is only one class.
    """

    labels: Labels
    scores: Scalars
    steps: PValueSteps | None
    threshold: float
    best: float | None


def interactive_view(files: SplitFiles, rate: float) -> dict[str, Any] | None:
    """Histograms, patients and the data for scripts of one split; None if it has no scores.

    `rate` is the requested rate of false positives.
    """
    table = files.table
    if table is None or not len(table):
        return None
    names, groups = np.unique(np.asarray(table.groups), return_inverse=True)
    units = _units(files, table, groups, rate)
    return {
        "units": {
            name: {"threshold": unit.threshold, "best": unit.best, "histogram": _histogram(unit)}
            for name, unit in units.items()
        },
        "rate": rate,
        "stored": files.stored,
        "has_normal_patients": bool((units[PATIENT].labels == 0).any()),
        "patients": _patients(table, names.tolist(), groups, units[PATIENT]),
        "data": _data(table, names.tolist(), groups, units, rate),
    }


def _units(files: SplitFiles, table: ScoreTable, groups: Labels, rate: float) -> dict[str, Unit]:
    calibration = None if files.stored is None else files.stored.calibration
    scores = table.columns[SCORE]
    patient_labels = group_maxima(table.labels.astype(np.float64), groups).astype(np.int64)

    def unit(labels: Labels, scores: Scalars, steps: PValueSteps | None) -> Unit:
        best = None
        if len(np.unique(labels)) == 2:
            best = thresholds.best_f1(labels, scores).threshold
        threshold = float(scores.max()) if best is None else best
        if calibration is not None and steps is not None:
            threshold = steps.threshold(max(rate, calibration.smallest_rate))
        return Unit(labels, scores, steps, threshold, best)

    image_steps = None if calibration is None else calibration.image_steps
    patient_steps = None if calibration is None else calibration.patient_steps
    return {
        IMAGE: unit(table.labels, scores, image_steps),
        PATIENT: unit(patient_labels, group_maxima(scores, groups), patient_steps),
    }


def _patients(
    table: ScoreTable, names: list[str], groups: Labels, unit: Unit
) -> list[dict[str, Any]]:
    """One row per patient, highest score first."""
    scores = table.columns[SCORE]
    slices, anomalous = np.bincount(groups), np.bincount(groups, table.labels).astype(int)
    # The row of each patient's highest score; of equal scores, the first row.
    order = np.argsort(-scores, kind="stable")
    highest = {int(groups[row]): row for row in reversed(order.tolist())}
    positions = [None] * len(table) if table.positions is None else table.positions.tolist()
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
            "position": positions[highest[int(number)]],
            "p_value": None if p_values is None else float(p_values[number]),
            "flagged": bool(unit.scores[number] > unit.threshold),
        }
        for number in np.argsort(-unit.scores, kind="stable")
    ]


def _data(
    table: ScoreTable, names: list[str], groups: Labels, units: Mapping[str, Unit], rate: float
) -> dict[str, Any]:
    """The data for scripts: slices, patients, and scores, labels and p-values of both units."""
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
                "steps": (steps := unit.steps)
                and {"scores": steps.scores.tolist(), "p_values": steps.p_values.tolist()},
            }
            for name, unit in units.items()
        },
    }


def _histogram(unit: Unit) -> dict[str, Any]:
    """The share of each class by score, as SVG paths in a box of `width` times `height`."""
    edges, classes = class_histograms(unit.labels, unit.scores)
    low, high = float(edges[0]), float(edges[-1])
    top = max(float(shares.max()) for _, shares in classes.values())
    xs = np.linspace(0, _WIDTH, len(edges))
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]

    def place(score: float) -> float:
        return round(_WIDTH * (score - low) / (high - low), 2)

    def outline(shares: Float[np.ndarray, " bins"]) -> str:
        return _stairs(xs, _HEIGHT * (1 - 0.95 * shares / top))

    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "low": low,
        "high": high,
        "classes": [
            {"name": name, "count": count, "path": outline(shares)}
            for name, (count, shares) in classes.items()
        ],
        "ticks": [{"x": place(tick), "text": f"{tick:.6g}"} for tick in ticks],
        "threshold": place(unit.threshold),
    }


def _stairs(xs: Float[np.ndarray, " edges"], ys: Float[np.ndarray, " bins"]) -> str:
    """The outline of a histogram down to its baseline, as an SVG path."""
    steps = "".join(f"V{y:.1f}H{x:.1f}" for x, y in zip(xs[1:], ys, strict=True))
    return f"M0 {_HEIGHT}{steps}V{_HEIGHT}Z"
