"""The curves of one test split."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxad.detector.detector import SCORE
from jaxad.report import figures
from jaxad.report.pictures import figure_view, save_figure
from jaxad.report.run_files import SplitFiles
from jaxad.storage.workdir import Workdir


def curves_view(workdir: Workdir, files: SplitFiles) -> tuple[list[dict[str, Any]], list[str]]:
    """ROC and precision-recall curves where they are defined, and notes where they are not.

    The histogram of the scores becomes a file alone: the page has one that thresholds move on.
    """
    notes: list[str] = []
    if files.num_not_finite:
        notes.append(f"Left out: {files.num_not_finite:,} slices whose score is not finite.")
    if files.table is None or not len(files.table):
        return [], notes
    labels, scores = files.table.labels, files.table.columns[SCORE]
    made: dict[str, Figure] = {}
    if len(np.unique(labels)) == 2:
        made["ROC curve"] = figures.roc_curve(labels, scores)
        made["Precision-recall curve"] = figures.precision_recall_curve(labels, scores)
    else:
        kind = "anomalous" if labels[0] else "normal"
        notes.append(
            f"Every slice of this split is {kind}: ROC and precision-recall curves, and the "
            "metrics made from them, are not defined."
        )
    if scores.min() == scores.max():
        notes.append("Every slice has the same score: it tells nothing apart.")
    save_figure(workdir, f"{files.name}_histogram", figures.score_histogram(labels, scores))
    views = [
        figure_view(
            workdir, f"{files.name}_{title.split()[0].lower()}", figure, f"{title}, {files.name}."
        )
        for title, figure in made.items()
    ]
    return views, notes
