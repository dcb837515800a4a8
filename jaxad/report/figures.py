"""The figures of a report: data in, a matplotlib Figure out, and the PNG of it.

Nothing here reads a file or touches pyplot. Figures are laid out in CSS pixels (96 an inch) and
drawn at two device pixels for each, so that they are sharp on a dense screen.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, VERMILLION, SKY, GREY = "#0072B2", "#D55E00", "#56B4E9", "#6b6b6b"

CSS_PIXELS_PER_INCH = 96
DEVICE_PIXEL_RATIO = 2

STYLE = matplotlib.rc_context(
    {
        "figure.dpi": CSS_PIXELS_PER_INCH * DEVICE_PIXEL_RATIO,
        "savefig.dpi": "figure",
        "savefig.bbox": None,
        "text.usetex": False,
        "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
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


def new_figure(width: int, height: int) -> Figure:
    """An empty white figure of this size in CSS pixels, on the Agg canvas."""
    size = (width / CSS_PIXELS_PER_INCH, height / CSS_PIXELS_PER_INCH)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@STYLE
def to_png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes (no date, no software version)."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4}
    )
    return buffer.getvalue()


def _note(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """Writes text below a place in fractions of the axes, away from the nearer side."""
    side = "right" if x > 0.5 else "left"
    axes.text(x, y, text, transform=axes.transAxes, ha=side, va="top", **style)


def css_size(figure: Figure) -> tuple[int, int]:
    """The (width, height) in CSS pixels at which a figure should be shown."""
    width, height = figure.get_size_inches() * CSS_PIXELS_PER_INCH
    return round(width), round(height)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A value over training.

    Attributes:
        steps: updates done, ascending.
        values: the value at each of them; not necessarily finite.
    """

    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]


def _set_value_scale(axes: Axes, values: Float[np.ndarray, " n"]) -> None:
    """Log scale where positive values span a decade or more; else keeps a few wild values out."""
    if values.min() > 0 and values.max() / values.min() > 10:
        axes.set_yscale("log")
        return
    low, middle, high = np.quantile(values, [0.0, 0.5, 0.95])
    if len(values) >= 10 and values.max() - low > 3 * (high - low) > 0:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.3 * (high - low))
        _note(
            axes, f"off the scale: up to {values.max():.3g}", 0.98, 0.97, color=GREY, fontsize=7.5
        )
    elif low == values.max():
        margin = 0.1 * abs(middle) or 1.0
        axes.set_ylim(middle - margin, middle + margin)


@STYLE
def training_curve(
    name: str, train: Curve | None = None, validation: Curve | None = None
) -> Figure:
    """One metric over the steps of training, and of validation where it was measured.

    Args:
        name: the metric, shown as the title.
        train: means over the steps since the last log, or None.
        validation: values at checkpoints, or None.
    """
    figure = new_figure(340, 240)
    axes = figure.add_subplot()
    # Long names would run into the labels at the right.
    axes.set_title(name, parse_math=False, fontsize=min(9.5, 9.5 * 20 / len(name)))
    shown = [("train", train, BLUE), ("validation", validation, VERMILLION)]
    values = np.concatenate([curve.values for _, curve, _ in shown if curve is not None])
    values = values[np.isfinite(values)]
    for label, curve, colour in shown:
        if curve is None:
            continue
        marker = "o" if label == "validation" or len(curve.steps) < 3 else None
        axes.plot(curve.steps, curve.values, color=colour, marker=marker, ms=3.5, label=label)
        if validation is not None:
            # Direct labels above the axes, where no curve runs.
            place = 0.74 if label == "train" else 1.0
            _note(axes, label, place, 1.09, color=colour, fontweight="bold", fontsize=8)
    if len(values):
        _set_value_scale(axes, values)
    else:
        _note(axes, "no finite value", 0.02, 0.96, color=GREY)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def unit_square(title: str, size: tuple[int, int] = (340, 320)) -> tuple[Figure, Axes]:
    """An empty figure of this size in CSS pixels, of rates from 0 to 1."""
    figure = new_figure(*size)
    axes = figure.add_subplot(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_title(title)
    return figure, axes


@STYLE
def roc_curve(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Figure:
    """The receiver operating characteristic of scores.

    Args:
        labels: 1 = anomalous, 0 = normal; both occur.
        scores: finite, higher = more anomalous.
    """
    false_positive_rate, true_positive_rate, _ = metrics.roc_curve(labels, scores)
    figure, axes = unit_square("ROC curve")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.text(0.62, 0.56, "chance", color=GREY, rotation=45, rotation_mode="anchor")
    axes.plot(false_positive_rate, true_positive_rate, color=BLUE, label="model", zorder=3)
    axes.set_xlabel("false positive rate (normal slices flagged)")
    axes.set_ylabel("true positive rate (anomalous slices flagged)")
    return figure


@STYLE
def precision_recall_curve(
    labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
) -> Figure:
    """Precision over recall.

    Args:
        labels: 1 = anomalous, 0 = normal; both occur.
        scores: finite, higher = more anomalous.
    """
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    prevalence = float(np.mean(labels))
    figure, axes = unit_square("Precision and recall")
    axes.axhline(prevalence, color=GREY, linestyle="--", linewidth=1)
    height = prevalence - 0.01 if prevalence > 0.12 else prevalence + 0.07
    _note(axes, f"chance (share of anomalous slices, {prevalence:.2f})", 0.02, height, color=GREY)
    axes.plot(recall, precision, color=BLUE, label="model", drawstyle="steps-post", zorder=3)
    axes.set_xlabel("recall (anomalous slices flagged)")
    axes.set_ylabel("precision (flagged slices that are anomalous)")
    return figure


@STYLE
def score_histogram(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Figure:
    """Histograms of the score of normal and of anomalous slices; each class sums to one.

    Args:
        labels: 1 = anomalous, 0 = normal; one class may be missing.
        scores: finite, higher = more anomalous.
    """
    figure = new_figure(340, 320)
    axes = figure.add_subplot()
    axes.set_title("Score of each slice")
    low, high = scores.min(), scores.max()
    if low == high:
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
        _note(axes, "every slice has the same score", 0.02, 0.96)
    edges = np.linspace(low, high, 41 if len(scores) >= 200 else 21)
    for label, (name, colour) in enumerate((("normal", BLUE), ("anomalous", VERMILLION))):
        chosen = scores[labels == label]
        if not len(chosen):
            continue
        share = np.histogram(chosen, edges)[0] / len(chosen)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=name)
        text = f"{name} ({len(chosen):,})"
        _note(axes, text, 0.99, 0.98 - 0.07 * label, color=colour, fontweight="bold")
    axes.set_ylim(0, 1.15 * axes.dataLim.y1)
    axes.set_xlabel("anomaly score (higher = more anomalous)")
    axes.set_ylabel("share of the slices of that class")
    return figure


@dataclasses.dataclass(frozen=True)
class ComparedScore:
    """AUROC of one score, each as (value, low, high) of a 95 % interval; None where not measured.

    Attributes:
        name: shown beside it.
        is_model: the model's own score, not a trivial one.
        raw: AUROC of the score as it is.
        corrected: AUROC of the score minus the training mean of its slice index.
    """

    name: str
    is_model: bool
    raw: tuple[float, float, float] | None
    corrected: tuple[float, float, float] | None


@STYLE
def comparison(rows: Sequence[ComparedScore]) -> Figure:
    """AUROC of the model and of the trivial scores: dots with 95 % intervals, first row on top."""
    figure = new_figure(440, 70 + 36 * len(rows))
    axes = figure.add_subplot()
    axes.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
    for index, row in enumerate(rows):
        colour = BLUE if row.is_model else GREY
        for interval, offset, fill in ((row.raw, -0.16, "white"), (row.corrected, 0.16, colour)):
            if interval is None:
                continue
            value, low, high = interval
            axes.plot([low, high], [index + offset] * 2, color=colour, linewidth=1.8)
            axes.plot([value], [index + offset], "o", color=colour, mfc=fill, mew=1.6, ms=6)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set(parse_math=False, fontweight="bold" if row.is_model else "normal")
        label.set_color(BLUE if row.is_model else "#333333")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    axes.set_xlabel("AUROC    ○ raw    ● position-corrected")
    return figure


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a contact sheet.

    Attributes:
        title: its heading.
        images: one image a row, [M, H, W] or [M, H, W, 3] (colours, shown from 0 to `high`).
        low: the value shown darkest.
        high: the value shown brightest.
        colormap: matplotlib's name.
        outline: draw the outline of the mask on it.
    """

    title: str
    images: Float[np.ndarray, "m h w *rgb"] | Bool[np.ndarray, "m h w"] | UInt8[np.ndarray, "m h w"]
    low: float = 0.0
    high: float = 1.0
    colormap: str = "gray"
    outline: bool = False


# The contact sheet's measures, in CSS pixels.
_CELL, _GAP, _LABEL_WIDTH, _HEADING, _FOOTING = 128, 6, 138, 26, 34


@STYLE
def contact_sheet(
    columns: Sequence[Column],
    row_labels: Sequence[str],
    masks: UInt8[np.ndarray, "m h w"] | None = None,
) -> Figure:
    """Images in rows (slices) and columns (what a system makes of them), each column on one scale.

    The axes of images have the label `cell`, the colour bars under the columns `scale`. A pixel of
    an image covers a whole number of the figure's pixels, up to images of 256 pixels.

    Args:
        columns: at least one.
        row_labels: M texts, shown left of the rows as they are (no mathtext).
        masks: 1 = anomalous; outlined in the columns that ask for it.
    """
    height, width = columns[0].images.shape[1:3]
    device_cell = _CELL * DEVICE_PIXEL_RATIO
    zoom = device_cell // max(height, width) or device_cell / max(height, width)
    cell_width = width * zoom / DEVICE_PIXEL_RATIO
    cell_height = height * zoom / DEVICE_PIXEL_RATIO
    total_width = round(_LABEL_WIDTH + len(columns) * (cell_width + _GAP))
    total_height = round(_HEADING + len(row_labels) * (cell_height + _GAP) + _FOOTING)
    figure = new_figure(total_width, total_height)
    figure.set_layout_engine("none")

    def add_axes(left: float, top: float, wide: float, high: float, label: str) -> Axes:
        box = (left / total_width, 1 - (top + high) / total_height)
        return figure.add_axes((*box, wide / total_width, high / total_height), label=label)

    for column_index, column in enumerate(columns):
        left = _LABEL_WIDTH + column_index * (cell_width + _GAP)
        x, y = (left + cell_width / 2) / total_width, 1 - (_HEADING - 9) / total_height
        figure.text(x, y, column.title, ha="center", fontweight="bold", parse_math=False)
        scale = Normalize(column.low, column.high, clip=True)
        for row_index, image in enumerate(column.images):
            top = _HEADING + row_index * (cell_height + _GAP)
            axes = add_axes(left, top, cell_width, cell_height, "cell")
            axes.set_axis_off()
            values = np.clip(image / column.high, 0, 1) if image.ndim == 3 else image
            artist = axes.imshow(values, column.colormap, scale, aspect="auto")
            artist.set_interpolation("nearest" if zoom >= 1 else "auto")
            if column.outline and masks is not None and 0 < masks[row_index].mean() < 1:
                axes.contour(masks[row_index], [0.5], colors=[SKY], linewidths=0.8)
        if column.images.ndim == 3:
            top = total_height - _FOOTING + 6.0
            bar = add_axes(left + 0.12 * cell_width, top, 0.76 * cell_width, 6.0, "scale")
            colour_bar = figure.colorbar(artist, cax=bar, orientation="horizontal")
            colour_bar.set_ticks([column.low, column.high])
            colour_bar.set_ticklabels([f"{column.low:g}", f"{column.high:g}"], fontsize=7)
            colour_bar.outline.set_visible(False)
            bar.tick_params(length=0, pad=2)
    for row_index, text in enumerate(row_labels):
        middle = _HEADING + row_index * (cell_height + _GAP) + cell_height / 2
        x, y = 6 / total_width, 1 - middle / total_height
        figure.text(x, y, text, va="center", fontsize=8, linespacing=1.5, parse_math=False)
    return figure
