"""Figures that compare several systems, or several runs, on one test split."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn import metrics

from jaxad.report.figures import (
    BLUE,
    CLASSES,
    GRAY,
    ROC_LABELS,
    SKY,
    STYLE,
    VERMILLION,
    FiniteScores,
    Labels,
    draw_roc,
    new_figure,
    unit_square,
)

# The palette of Okabe and Ito, ordered so that neighbours differ; black is for baselines.
_COLORS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", SKY)
_STYLES = ("-", "--", "-.")


@dataclasses.dataclass(frozen=True)
class SystemScores:
    """The scores of each run of one system on a split with both classes.

    Attributes:
        is_baseline: whether the system has no network.
    """

    labels: Labels
    runs: Sequence[FiniteScores]
    is_baseline: bool = False


@STYLE
def roc_curves(
    systems: Mapping[str, SystemScores], split: str, *, best_first: bool = False
) -> Figure:
    """Draws the ROC curves of all systems (title -> scores) in one plot; see `draw_roc`.

    Colours and the legend follow the order of the systems, or of their AUROC if `best_first`.
    """
    aurocs = {
        name: float(np.mean([metrics.roc_auc_score(system.labels, run) for run in system.runs]))
        for name, system in systems.items()
    }
    # Beside the square axes, as wide as the longest line of the legend.
    width = 480 + round(6.5 * max(len(f"{name}  0.500") for name in systems))
    figure, axes = unit_square(f"ROC curves, {split}", *ROC_LABELS, (width, 400))
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle=":", linewidth=1)
    number = 0
    for name in sorted(systems, key=lambda name: -aurocs[name]) if best_first else systems:
        system = systems[name]
        color, style = "black", ":"
        if not system.is_baseline:
            color = _COLORS[number % len(_COLORS)]
            style = _STYLES[number // len(_COLORS) % len(_STYLES)]
            number += 1
        text = f"{name}  {aurocs[name]:.3f}"
        draw_roc(axes, system.labels, system.runs, color=color, linestyle=style, label=text)
    figure.legend(title="AUROC", loc="outside right center", frameon=False)
    return figure


@STYLE
def score_densities(systems: Mapping[str, SystemScores], split: str) -> Figure:
    """Draws densities of the scores of normal and anomalous slices, one panel per system.

    Kernel density estimates of the system's first run, between the 0.5th and 99.5th percentile.
    """
    columns = min(3, len(systems))
    rows = math.ceil(len(systems) / columns)
    figure = new_figure(260 * columns, 40 + 190 * rows)
    figure.suptitle(f"Scores, {split}", x=0.01, ha="left", fontweight="bold", fontsize=9.5)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, system) in zip(panels, systems.items(), strict=False):
        axes.set_title(name, parse_math=False)
        scores = system.runs[0]
        low, high = np.quantile(scores, [0.005, 0.995])
        if low == high:
            axes.text(0.02, 0.9, "every slice has the same score", transform=axes.transAxes)
            continue
        grid = np.linspace(low, high, 200)
        for label, (kind, color) in enumerate(CLASSES.items()):
            chosen = scores[system.labels == label]
            if len(np.unique(chosen)) < 2:
                text = f"{kind}: too few scores for a density"
                axes.text(0.02, 0.9 - 0.1 * label, text, color=color, transform=axes.transAxes)
                continue
            density = scipy.stats.gaussian_kde(chosen)(grid)
            axes.fill_between(grid, density, color=color, alpha=0.25, linewidth=0)
            axes.plot(grid, density, color=color, label=kind)
            axes.margins(x=0)
        axes.set_ylim(bottom=0)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=4)
    for axes in panels[len(systems) :]:
        axes.set_axis_off()
    handles = [Patch(color=color, alpha=0.5, label=kind) for kind, color in CLASSES.items()]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False)
    return figure


@STYLE
def heat_map(
    values: Float[np.ndarray, "rows columns"],
    rows: Sequence[float],
    columns: Sequence[float],
    names: tuple[str, str],
    title: str,
) -> Figure:
    """Draws a value over two settings and writes it into each cell, the largest in bold.

    Rows and columns are the values of the two named settings; rows go from bottom to top. NaN is
    left empty.
    """
    figure = new_figure(90 + 52 * len(columns), 110 + 34 * len(rows))
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(False)
    image = axes.imshow(values, "viridis", origin="lower", aspect="auto")
    low, high = np.nanmin(values), np.nanmax(values)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        bright = value > (low + high) / 2
        axes.text(
            column, row, f"{value:.3f}", ha="center", va="center", fontsize=7.5,
            color="black" if bright else "white",
            fontweight="bold" if value == high else "normal",
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])
    figure.colorbar(image, ax=axes, pad=0.02).outline.set_visible(False)
    return figure
