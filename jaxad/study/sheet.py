"""The same slices through all systems of a study: the paper's Figure 2 and its supplement's."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.detector.restored import restore
from jaxad.report import figures
from jaxad.report.columns import (
    as_shown,
    map_column,
    reconstruction_columns,
    residual_column,
)
from jaxad.report.figures import Column
from jaxad.study.plan import PlannedRun
from jaxad.study.tables import title
from jaxad.types import Scores, Split


def choose_slices(split: Split, count: int) -> np.ndarray:
    """Rows of `count` slices of as many patients, every other one anomalous where there are.

    No score is looked at: patients are spread evenly over the split, and of each the middle one
    of its slices of the wanted kind is taken.
    """
    patients = list(dict.fromkeys(split.groups))
    chosen = np.linspace(0, len(patients) - 1, min(count, len(patients))).round().astype(int)
    groups = np.asarray(split.groups)
    rows = []
    for number, patient in enumerate(chosen):
        own = np.flatnonzero(groups == patients[patient])
        wanted = own[split.labels[own] == (number + 1) % 2]
        candidates = wanted if len(wanted) else own
        rows.append(int(candidates[len(candidates) // 2]))
    return np.asarray(rows)


def reconstruction_sheet(runs: Mapping[str, PlannedRun], split: Split, count: int) -> Figure:
    """Input, each system's parts and reconstruction, where it has them, and the mask.

    Args:
        runs: experiment -> one finished run of it.
        split: where the slices are from.
        count: how many.
    """
    return _sheet(runs, split, count, _reconstructions)


def map_sheet(runs: Mapping[str, PlannedRun], split: Split, count: int) -> Figure:
    """Input, each system's residual (its anomaly map where it reconstructs nothing) and the mask.

    Arguments are those of `reconstruction_sheet`.
    """
    return _sheet(runs, split, count, _maps)


def _sheet(
    runs: Mapping[str, PlannedRun],
    split: Split,
    count: int,
    columns_of: Callable[[str, np.ndarray, Scores], Iterable[Column]],
) -> Figure:
    rows = choose_slices(split, count)
    images = to_unit_interval(split.images[rows])
    labels = [f"{split.ids[row]}\n{'anomalous' if split.labels[row] else 'normal'}" for row in rows]
    masks = None if split.masks is None else split.masks[rows]
    columns = [Column("input", as_shown(images), outline=True)]
    for name, run in runs.items():
        scores = restore(run.workdir.path).score(images)
        columns += columns_of(name, images, scores)
    if masks is not None:
        columns.append(Column("mask", masks))
    return figures.contact_sheet(columns, labels, masks)


def _reconstructions(name: str, images: np.ndarray, scores: Scores) -> Iterable[Column]:
    """A system's parts, where it has them, and its reconstruction."""
    del images
    found = {part: np.asarray(array) for part, array in scores.reconstructions.items()}

    def heading(part: str) -> str:
        return title(name) if part == "reconstruction" else f"{title(name)}, {part}"

    return reconstruction_columns(found, heading).values()


def _maps(name: str, images: np.ndarray, scores: Scores) -> Iterable[Column]:
    """|x - reconstruction|, or the anomaly map."""
    if "reconstruction" in scores.reconstructions:
        reconstructions = np.asarray(scores.reconstructions["reconstruction"])
        return [residual_column(f"{title(name)}, residual", images, reconstructions)]
    return [map_column(f"{title(name)}, map", np.asarray(scores.pixel))]
