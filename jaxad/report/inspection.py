"""The contact sheet of a data set: some images of every split, anomalies outlined."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.report.columns import as_shown
from jaxad.report.figures import STYLE, VERMILLION, new_figure
from jaxad.types import Split

_COLUMNS, _TILE = 8, 110


@STYLE
def contact_sheet(splits: Mapping[str, Split]) -> Figure:
    """A row of normal images of each split and, of test splits, one of anomalous ones.

    Images are taken at even distances, so that many patients are seen.
    """
    rows: list[tuple[str, Split, Int[np.ndarray, " n"]]] = []
    for name, split in splits.items():
        for label, word in ((0, "normal"), (1, "anomalous")):
            places = np.flatnonzero(split.labels == label)
            if len(places):
                chosen = np.linspace(0, len(places) - 1, min(_COLUMNS, len(places)))
                picked = places[chosen.round().astype(int)]
                rows.append((f"{name}: {word} ({len(places):,})", split, picked))
    figure = new_figure(_COLUMNS * _TILE, len(rows) * (_TILE + 22))
    axes = figure.subplots(len(rows), _COLUMNS, squeeze=False)
    for line, (title, split, places) in zip(axes, rows, strict=True):
        line[0].set_title(title, loc="left")
        for one in line:
            one.set_axis_off()
        for one, place in zip(line, places, strict=False):
            _show(one, split, int(place))
    return figure


def _show(axes: Axes, split: Split, place: int) -> None:
    image = as_shown(to_unit_interval(split.images[place])[None])[0]
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    if split.masks is not None and split.masks[place].any():
        axes.contour(split.masks[place], levels=[0.5], colors=[VERMILLION], linewidths=1.0)
