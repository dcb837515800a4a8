"""The slices that a reader steps through: images, score and the components that drove it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxad.calibration.calibration_set import drivers
from jaxad.detector.detector import SCORE
from jaxad.evaluate.examples import FALSE_ALARMS, LEAST, MISSES, MOST, Examples
from jaxad.evaluate.score_table import ScoreTable
from jaxad.report.columns import Column, sheet_columns
from jaxad.report.contact_sheet import draw_pages
from jaxad.report.pictures import outline, panel_view
from jaxad.report.run_files import SplitFiles

#: Kinds of cases: the text of the choice, and the description of a case.
TITLES = {
    MOST: ("Highest scores", "among the highest scores"),
    LEAST: ("Lowest scores", "among the lowest scores"),
    FALSE_ALARMS: ("Highest normal", "among the highest of normal slices"),
    MISSES: ("Lowest anomalous", "among the lowest of anomalous slices"),
}


def cases_view(files: SplitFiles) -> dict[str, Any] | None:
    """The cases of a split, their columns and their kinds; None if no examples were kept."""
    examples = files.examples
    if examples is None or not len(examples):
        return None
    columns = sheet_columns(examples.images, examples, examples.masks)
    shown = [column for name, column in columns.items() if name != "mask"]
    ranks = {kind: examples.ranked(kind).tolist() for kind in examples.kinds}
    order = dict.fromkeys(row for rows in ranks.values() for row in rows)
    return {
        "columns": columns,
        "has_map": not set(columns) <= {"input", "residual", "mask", *examples.reconstructions},
        "kinds": [(kind, TITLES[kind][0]) for kind, rows in ranks.items() if rows],
        "cases": [
            {
                "kinds": {kind: rows.index(row) for kind, rows in ranks.items() if row in rows},
                "descriptions": [TITLES[kind][1] for kind, rows in ranks.items() if row in rows],
                **images_view(examples, row, shown),
                **_score_view(files, examples, row),
            }
            for row in order
        ],
    }


def images_view(examples: Examples, row: int, columns: list[Column]) -> dict[str, Any]:
    """Returns the images of one case, its label and the outline of its mask."""
    return {
        "id": examples.ids[row],
        "label": int(examples.labels[row]),
        "height": examples.pixel.shape[1],
        "width": examples.pixel.shape[2],
        "outline": "" if examples.masks is None else outline(examples.masks[row]),
        "panels": [panel_view(column, row) for column in columns],
    }


def _score_view(files: SplitFiles, examples: Examples, row: int) -> dict[str, Any]:
    """The score of a case; with its row of scores.csv also patient, p-value and components."""
    view: dict[str, Any] = {"score": float(examples.scores[row]), "components": []}
    view |= dict.fromkeys(("patient", "position", "p_value", "driver"))
    if files.table is None or examples.ids[row] not in files.table.ids:
        return view
    table = files.table.rows(np.array([files.table.ids.index(examples.ids[row])]))
    scores, added = table.columns[SCORE], _contributions(files, table)
    view["score"], view["patient"] = float(scores[0]), table.groups[0]
    if table.positions is not None:
        view["position"] = int(table.positions[0])
    if files.stored is not None:
        view["p_value"] = float(files.stored.calibration.image_p_values(scores)[0])
    if added:
        driver = drivers(added)[0]
        # The largest of contributions that all lower the score explains nothing.
        view["driver"] = driver if added[driver][0] > 0 else None
    for name, values in table.components.items():
        contribution = float(added[name][0]) if name in added else None
        component = {"name": name, "value": float(values[0]), "added": contribution}
        view["components"].append(component)
    # The largest contribution first; components that the score does not include last.
    view["components"].sort(key=lambda part: (part["added"] is None, -(part["added"] or 0.0)))
    return view


def _contributions(files: SplitFiles, table: ScoreTable) -> dict[str, np.ndarray]:
    """What each component adds to the score; {} without the components of normal images."""
    weights = files.metrics.get("score_weights", {})
    normals = files.stored
    if normals is None or not set(weights) <= set(table.columns) & set(normals.components):
        return {}
    return normals.contributions(table.columns, weights)


def cases_sheets(examples: Examples, kind: str) -> Iterator[Figure]:
    """Yields the pages of the contact sheet of one kind of cases, the most extreme first."""
    rows = examples.ranked(kind)
    kinds = ("normal", "anomalous")
    labels = [
        f"{examples.ids[row]}\n{kinds[examples.labels[row]]}\nscore {examples.scores[row]:,.5g}"
        for row in rows
    ]
    columns = sheet_columns(examples.images, examples, examples.masks)
    return draw_pages([column.rows(rows) for column in columns.values()], labels)
