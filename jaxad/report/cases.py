"""The slices that a reader steps through: what was seen in each, its score and what drove it."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxad.calibration.calibration_set import drivers
from jaxad.detector.detector import SCORE
from jaxad.evaluate.examples import FALSE_ALARMS, LEAST, MISSES, MOST, Examples
from jaxad.evaluate.score_table import ScoreTable
from jaxad.report import figures
from jaxad.report.columns import sheet_columns
from jaxad.report.figures import Column
from jaxad.report.pictures import cell, gradient, outline
from jaxad.report.run_files import SplitFiles

#: Kinds of cases: what a reader chooses, and what a case is called.
TITLES = {
    MOST: ("Most anomalous", "among the most anomalous"),
    LEAST: ("Least anomalous", "among the least anomalous"),
    FALSE_ALARMS: ("False alarms", "a false alarm: normal, with one of the highest scores"),
    MISSES: ("Misses", "a miss: anomalous, with one of the lowest scores"),
}


def cases_view(files: SplitFiles) -> dict[str, Any] | None:
    """The cases of a split, their columns and their kinds; None where no slices were kept."""
    examples = files.examples
    if examples is None or not len(examples):
        return None
    columns = sheet_columns(examples)
    ranks = {kind: examples.ranked(kind).tolist() for kind in examples.kinds}
    shown = {name: column for name, column in columns.items() if name != "mask"}
    order = dict.fromkeys(row for rows in ranks.values() for row in rows)
    return {
        "columns": columns,
        "kinds": [(kind, TITLES[kind][0]) for kind, rows in ranks.items() if rows],
        "cases": [
            {
                "kinds": {kind: rows.index(row) for kind, rows in ranks.items() if row in rows},
                "called": [TITLES[kind][1] for kind, rows in ranks.items() if row in rows],
                "height": examples.pixel.shape[1],
                "width": examples.pixel.shape[2],
                "outline": case_outline(examples, row),
                "panels": [panel(column, row) for column in shown.values()],
                **_told(files, examples, row),
            }
            for row in order
        ],
    }


def panel(column: Column, row: int) -> dict[str, Any]:
    """One image of a case and, where it has one, its scale."""
    view: dict[str, Any] = {"title": column.title, "source": cell(column, row), "scale": None}
    if column.images.ndim == 3:
        view["scale"] = {
            "low": f"{column.low:g}",
            "high": f"{column.high:g}",
            "gradient": gradient(column.colormap),
        }
    return view


def case_outline(examples: Examples, row: int) -> str:
    """The outline of a case's mask; "" without one."""
    return "" if examples.masks is None else outline(examples.masks[row])


def _told(files: SplitFiles, examples: Examples, row: int) -> dict[str, Any]:
    """What is said of a case: of its row in scores.csv where it has one."""
    told: dict[str, Any] = {
        "id": examples.ids[row],
        "label": int(examples.labels[row]),
        "score": float(examples.scores[row]),
        "patient": None,
        "position": None,
        "p_value": None,
        "components": [],
        "driver": None,
    }
    table = files.table
    if table is None or examples.ids[row] not in table.ids:
        return told
    own = table.rows(np.array([table.ids.index(examples.ids[row])]))
    told["score"] = float(own.columns[SCORE][0])
    told["patient"] = own.groups[0]
    told["position"] = None if own.positions is None else int(own.positions[0])
    if files.stored is not None:
        told["p_value"] = float(files.stored.calibration.image_p_values(own.columns[SCORE])[0])
    added = _added(files, own)
    told["driver"] = drivers(added)[0] if added else None
    told["components"] = [
        {
            "name": name,
            "value": float(values[0]),
            "added": float(added[name][0]) if name in added else None,
        }
        for name, values in own.components.items()
    ]
    # What adds most first; then what is no part of the score.
    told["components"].sort(key=lambda one: (one["added"] is None, -(one["added"] or 0.0)))
    return told


def _added(files: SplitFiles, own: ScoreTable) -> dict[str, np.ndarray]:
    """What each part of the score adds to it; nothing where normal images do not tell."""
    weights = files.metrics.get("score_weights", {})
    normals = files.stored
    if normals is None or not set(weights) <= set(own.columns) & set(normals.components):
        return {}
    return normals.contributions(own.columns, weights)


def sheet(examples: Examples, kind: str) -> Figure:
    """The contact sheet of one kind, the most telling slice first."""
    rows = examples.ranked(kind)
    labels = []
    for row in rows:
        kind_of_slice = "anomalous" if examples.labels[row] else "normal"
        name = _shortened(examples.ids[row])
        labels.append(f"{name}\n{kind_of_slice}\nscore {examples.scores[row]:,.5g}")
    columns = sheet_columns(examples)
    shown = [dataclasses.replace(c, images=c.images[rows]) for c in columns.values()]
    masks = None if examples.masks is None else examples.masks[rows]
    return figures.contact_sheet(shown, labels, masks)


def _shortened(name: str, length: int = 20) -> str:
    """The name, its middle left out where it is longer than `length`."""
    half = length // 2 - 1
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"
