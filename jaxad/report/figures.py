"""The figures of a report: functions from data to a matplotlib Figure, and from that to PNG.

Nothing here reads a file or imports pyplot. Figures are laid out in CSS pixels (96 per inch) and
drawn at two device pixels per CSS pixel, so that they are sharp on high-density screens.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

# The palette of Okabe and Ito, distinguishable with any form of colour vision.
BLUE, VERMILLION, SKY, GRAY = "#0072B2", "#D55E00", "#56B4E9", "#6b6b6b"

#: Class -> its colour; in the order of labels, 0 = normal and 1 = anomalous.
CLASSES = {"normal": BLUE, "anomalous": VERMILLION}

#: 1 = anomalous, 0 = normal.
Labels = Int[np.ndarray, " n"]
#: Finite scores; higher = more anomalous.
FiniteScores = Float[np.ndarray, " n"]

#: Labels of the axes of ROC curves.
ROC_LABELS = (
    "false positive rate (normal slices flagged)",
    "true positive rate (anomalous slices flagged)",
)

CSS_PIXELS_PER_INCH = 96
DEVICE_PIXEL_RATIO = 2

STYLE = matplotlib.rc_context(
    {
        "figure.dpi": CSS_PIXELS_PER_INCH * DEVICE_PIXEL_RATIO,
        "savefig.dpi": "figure",
        "savefig.bbox": None,
        "text.usetex": False,
        "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelcolor": "#333333",
        "axes.edgecolor": "#999999",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "grid.color": "#e8e8e8",
        "lines.linewidth": 1.6,
    }
)


def new_figure(
    width: int, height: int, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty white figure on the Agg canvas; width and height are in CSS pixels."""
    size = (width / CSS_PIXELS_PER_INCH, height / CSS_PIXELS_PER_INCH)
    figure = Figure(figsize=size, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


@STYLE
def to_png(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes (no date, no software version)."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4}
    )
    return buffer.getvalue()


def _note(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """Writes text below a point, in fractions of the axes, toward their middle."""
    side = "right" if x > 0.5 else "left"
    axes.text(x, y, text, transform=axes.transAxes, ha=side, va="top", **style)


def css_size(figure: Figure) -> tuple[int, int]:
    """The (width, height) in CSS pixels at which a figure should be shown."""
    width, height = figure.get_size_inches() * CSS_PIXELS_PER_INCH
    return round(width), round(height)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over training: its values, which may be not finite, after these updates."""

    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]


def _set_value_scale(axes: Axes, values: Float[np.ndarray, " n"]) -> None:
    """Sets a log scale for positive values over more than a decade; otherwise cuts off outliers."""
    if values.min() > 0 and values.max() / values.min() > 10:
        axes.set_yscale("log")
        return
    low, middle, high = np.quantile(values, [0.0, 0.5, 0.95])
    if len(values) >= 10 and values.max() - low > 3 * (high - low) > 0:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.3 * (high - low))
        text = f"off the scale: up to {values.max():.3g}"
        _note(axes, text, 0.98, 0.97, color=GRAY, fontsize=7.5)
    elif low == values.max():
        margin = 0.1 * abs(middle) or 1.0
        axes.set_ylim(middle - margin, middle + margin)


@STYLE
def training_curve(
    name: str, train: Curve | None = None, validation: Curve | None = None
) -> Figure:
    """Draws one metric over training steps; at least one of the curves is given.

    Args:
        name: the metric, shown as the title.
        train: means over the steps since the last log.
        validation: values at checkpoints.
    """
    figure = new_figure(340, 240)
    axes = figure.add_subplot()
    # Long names shrink so that they do not run into the labels at the right.
    axes.set_title(name, parse_math=False, fontsize=min(9.5, 9.5 * 20 / len(name)))
    shown = [("train", train, BLUE), ("validation", validation, VERMILLION)]
    values = np.concatenate([curve.values for _, curve, _ in shown if curve is not None])
    values = values[np.isfinite(values)]
    for label, curve, color in shown:
        if curve is None:
            continue
        marker = "o" if label == "validation" or len(curve.steps) < 3 else None
        axes.plot(curve.steps, curve.values, color=color, marker=marker, ms=3.5, label=label)
        if validation is not None:
            # Labels are above the axes, where no curve is.
            place = 0.74 if label == "train" else 1.0
            _note(axes, label, place, 1.09, color=color, fontweight="bold", fontsize=8)
    if len(values):
        _set_value_scale(axes, values)
    else:
        _note(axes, "no finite value", 0.02, 0.96, color=GRAY)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def unit_square(
    title: str, x_label: str, y_label: str, size: tuple[int, int] = (340, 320)
) -> tuple[Figure, Axes]:
    """An empty figure with square axes for rates from 0 to 1; the size is in CSS pixels."""
    figure = new_figure(*size)
    axes = figure.add_subplot(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return figure, axes


def draw_roc(axes: Axes, labels: Labels, runs: Sequence[FiniteScores], **style: Any) -> None:
    """Draws the receiver operating characteristic (ROC) of one system; both classes are present.

    Of several runs, the curve is the mean true positive rate at each false positive rate. It rises
    vertically where theirs do.
    """
    curves = [metrics.roc_curve(labels, scores)[:2] for scores in runs]
    rates = np.unique(np.concatenate([false for false, _ in curves]))
    # The lower and upper ends of vertical parts: `interp` returns the last of several points.
    low = np.mean([-np.interp(-rates, -x[::-1], -y[::-1]) for x, y in curves], axis=0)
    high = np.mean([np.interp(rates, x, y) for x, y in curves], axis=0)
    axes.plot(np.repeat(rates, 2), np.stack([low, high], axis=1).ravel(), **style)


@STYLE
def roc_curve(labels: Labels, scores: FiniteScores) -> Figure:
    """Draws the ROC curve of scores; both classes are present."""
    figure, axes = unit_square("ROC curve", *ROC_LABELS)
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    axes.text(0.62, 0.6, "chance", color=GRAY, rotation=45, rotation_mode="anchor", va="top")
    draw_roc(axes, labels, [scores], color=BLUE, label="model", zorder=3)
    return figure


@STYLE
def precision_recall_curve(labels: Labels, scores: FiniteScores) -> Figure:
    """Draws precision over recall; both classes are present."""
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    prevalence = float(np.mean(labels))
    labels_of_axes = (
        "recall (anomalous slices flagged)", "precision (flagged slices that are anomalous)"
    )  # fmt: skip
    figure, axes = unit_square("Precision and recall", *labels_of_axes)
    axes.axhline(prevalence, color=GRAY, linestyle="--", linewidth=1)
    height = prevalence - 0.01 if prevalence > 0.12 else prevalence + 0.07
    _note(axes, f"chance (share of anomalous slices, {prevalence:.2f})", 0.02, height, color=GRAY)
    axes.plot(recall, precision, color=BLUE, label="model", drawstyle="steps-post", zorder=3)
    return figure


def class_histograms(
    labels: Labels, scores: FiniteScores
) -> tuple[Float[np.ndarray, " edges"], dict[str, tuple[int, Float[np.ndarray, " bins"]]]]:
    """Histograms of the scores of each class.

    Returns:
        The edges of the bins, and for `normal` and `anomalous`, where present, the number of scores
        and the share of them in each bin.
    """
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
    edges = np.linspace(low, high, 41 if len(scores) >= 200 else 21)
    return edges, {
        name: (len(chosen), np.histogram(chosen, edges)[0] / len(chosen))
        for label, name in enumerate(CLASSES)
        if len(chosen := scores[labels == label])
    }


@STYLE
def score_histogram(labels: Labels, scores: FiniteScores) -> Figure:
    """Draws histograms of the scores of normal and anomalous slices; each class sums to one."""
    figure = new_figure(340, 320)
    axes = figure.add_subplot()
    axes.set_title("Score of each slice")
    edges, classes = class_histograms(labels, scores)
    if scores.min() == scores.max():
        _note(axes, "every slice has the same score", 0.02, 0.96)
    for index, (name, (count, shares)) in enumerate(classes.items()):
        color = CLASSES[name]
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.25)
        axes.stairs(shares, edges, color=color, linewidth=1.5, label=name)
        text, top = f"{name} ({count:,})", 0.98 - 0.07 * index
        _note(axes, text, 0.99, top, color=color, fontweight="bold")
    axes.set_ylim(0, 1.15 * axes.dataLim.y1)
    axes.set_xlabel("anomaly score (higher = more anomalous)")
    axes.set_ylabel("share of the slices of that class")
    return figure


@dataclasses.dataclass(frozen=True)
class ComparedScore:
    """The AUROC of one score, as (value, low, high) with a 95 % interval; None if not measured.

    Attributes:
        name: the text beside the row.
        is_model: whether it is the score of the model; otherwise a reference score.
        raw: the AUROC of the score itself.
        corrected: the AUROC of the score minus its mean over training slices at the same position.
    """

    name: str
    is_model: bool
    raw: tuple[float, float, float] | None
    corrected: tuple[float, float, float] | None


@STYLE
def comparison(rows: Sequence[ComparedScore]) -> Figure:
    """Draws the AUROC of several scores: dots with 95 % intervals, the first row on top."""
    figure = new_figure(500, 70 + 36 * len(rows))
    axes = figure.add_subplot()
    axes.axvline(0.5, color=GRAY, linestyle="--", linewidth=1)
    for index, row in enumerate(rows):
        color = BLUE if row.is_model else GRAY
        # Two points are above and below the middle of their label, one is level with it.
        shift = 0.16 if row.raw and row.corrected else 0.0
        for interval, offset, fill in ((row.raw, -shift, "white"), (row.corrected, shift, color)):
            if interval is None:
                continue
            value, low, high = interval
            axes.plot([low, high], [index + offset] * 2, color=color, linewidth=1.8)
            axes.plot([value], [index + offset], "o", color=color, mfc=fill, mew=1.6, ms=6)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set(parse_math=False, fontweight="bold" if row.is_model else "normal")
        label.set_color(BLUE if row.is_model else "#333333")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    has_corrected = any(row.corrected for row in rows)
    axes.set_xlabel("AUROC    ○ raw    ● position-corrected" if has_corrected else "AUROC")
    return figure
