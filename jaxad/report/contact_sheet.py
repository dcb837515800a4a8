"""Contact sheets as figures: rows of images beside the outputs of a system for them."""

import logging
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.errors import UserError
from jaxad.report import figures
from jaxad.report.columns import Column, image_column, sheet_columns
from jaxad.report.figures import DEVICE_PIXEL_RATIO, SKY, STYLE
from jaxad.types import Scores, Split

logger = logging.getLogger(__name__)

#: Sizes in CSS pixels.
_CELL, _GAP, _LABEL_WIDTH, _HEADING, _FOOTING = 128.0, 6.0, 138.0, 26.0, 34.0
#: Height of a further line of a title, in CSS pixels, and the largest font of titles, in points.
_TITLE_LINE, _TITLE_SIZE = 12.0, 8.5
#: The number of characters that fit beside a row, and above a column.
_LABEL_CHARACTERS, _TITLE_CHARACTERS = 20, 18
#: A longer line of a label loses its middle.
_LONGEST_LINE = 3 * _LABEL_CHARACTERS
#: Rows of a page: matplotlib cannot draw figures of any height.
ROWS_PER_PAGE = 24
#: Images per row of a data set's sheet.
_DATA_SET_COLUMNS = 8


@STYLE
def draw_sheet(columns: Sequence[Column], row_labels: Sequence[str]) -> Figure:
    """Draws columns of images side by side, each column on one scale.

    The axes of the images have the label `cells`, those of colour bars `scale`. Each pixel of an
    image covers a whole number of the figure's pixels if the image has at most 256 pixels a side.

    Args:
        columns: at least one; all have M images of the same size.
        row_labels: M texts left of the rows, shown literally (no mathtext).
    """
    height, width = columns[0].images.shape[1:3]
    device_cell = _CELL * DEVICE_PIXEL_RATIO
    zoom = device_cell // max(height, width) or device_cell / max(height, width)
    cell_width, cell_height = (size * zoom / DEVICE_PIXEL_RATIO for size in (width, height))
    titles, title_size = _title_lines([column.title for column in columns], cell_width / _CELL)
    num_lines = max(len(lines) for lines in titles)
    heading = _HEADING + (num_lines - 1) * _TITLE_LINE if num_lines else _GAP
    footing = _FOOTING if num_lines else 0.0
    total_width = round(_LABEL_WIDTH + len(columns) * (cell_width + _GAP))
    total_height = round(heading + len(row_labels) * (cell_height + _GAP) + footing)
    figure = figures.new_figure(total_width, total_height, layout=None)
    # One system of axes for all images: drawing one for each takes ten times as long.
    cells = figure.add_axes((0, 0, 1, 1), label="cells")
    cells.set_axis_off()

    def add_text(left: float, middle: float, text: str, **style: Any) -> None:
        figure.text(left / total_width, 1 - middle / total_height, text, parse_math=False, **style)

    tops = [heading + row * (cell_height + _GAP) for row in range(len(row_labels))]
    for index, column in enumerate(columns):
        left = _LABEL_WIDTH + index * (cell_width + _GAP)
        for row, top in enumerate(tops):
            corners = (left, left + cell_width, top + cell_height, top)
            artist = _draw_image(cells, column, row, corners)
            artist.set_interpolation("nearest" if zoom >= 1 else "auto")
        if not column.title:
            continue
        for number, line in enumerate(reversed(titles[index])):
            place = (left + cell_width / 2, heading - 9 - number * _TITLE_LINE)
            add_text(*place, line, ha="center", fontweight="bold", fontsize=title_size)
        if column.images.ndim == 3:
            box = (
                (left + 0.12 * cell_width) / total_width, (footing - 12.0) / total_height,
                0.76 * cell_width / total_width, 6.0 / total_height,
            )  # fmt: skip
            color_bar = figure.colorbar(
                artist, cax=figure.add_axes(box, label="scale"), orientation="horizontal"
            )
            ends = [column.low, column.high]
            color_bar.set_ticks(ends, labels=[f"{end:g}" for end in ends], fontsize=7)
            color_bar.outline.set_visible(False)
            color_bar.ax.tick_params(length=0, pad=2)
    cells.set(xlim=(0, total_width), ylim=(total_height, 0))
    for text, top in zip(row_labels, tops, strict=True):
        middle = top + cell_height / 2
        add_text(6.0, middle, _wrap(text), va="center", fontsize=8, linespacing=1.5)
    return figure


def draw_pages(columns: Sequence[Column], row_labels: Sequence[str]) -> Iterator[Figure]:
    """Yields a sheet for every `ROWS_PER_PAGE` rows; see `draw_sheet`."""
    for start in range(0, len(row_labels), ROWS_PER_PAGE):
        labels = row_labels[start : start + ROWS_PER_PAGE]
        rows = np.arange(start, start + len(labels))
        yield draw_sheet([column.rows(rows) for column in columns], labels)


def _draw_image(
    axes: Axes, column: Column, row: int, corners: tuple[float, float, float, float]
) -> AxesImage:
    """Draws one image and, where the column has masks, the outline of its mask.

    `corners` are the left, right, bottom and top edges of the image, in the units of `axes`.
    """
    values = column.images[row]
    if values.ndim == 3:  # RGB cannot be NaN: empty is white
        values = np.nan_to_num(np.clip(values / column.high, 0, 1), nan=1.0)
    scale = Normalize(column.low, column.high, clip=True)
    artist = axes.imshow(values, column.colormap, scale, aspect="auto", extent=corners)
    if column.masks is not None and 0 < column.masks[row].mean() < 1:
        mask = column.masks[row]
        axes.contour(mask, [0.5], colors=[SKY], linewidths=1.0, extent=corners, origin="upper")
    return artist


def _title_lines(titles: Sequence[str], width: float) -> tuple[list[list[str]], float]:
    """Returns the lines of each title and the font size at which all fit above their columns.

    Args:
        titles: of the columns; "" has no lines.
        width: of a column, as a multiple of `_CELL`.
    """
    fitting = max(1, int(_TITLE_CHARACTERS * width))
    lines = [
        [
            part
            for line in title.splitlines()
            for part in textwrap.wrap(line, fitting, break_long_words=False, break_on_hyphens=False)
        ]
        for title in titles
    ]
    longest = max((len(line) for wrapped in lines for line in wrapped), default=1)
    return lines, _TITLE_SIZE * min(1.0, fitting / longest)


def _wrap(label: str) -> str:
    """The label in lines that fit beside a row."""
    half = _LONGEST_LINE // 2 - 1
    lines = [
        line if len(line) <= _LONGEST_LINE else f"{line[:half]}…{line[-half:]}"
        for line in label.split("\n")
    ]
    return "\n".join(textwrap.fill(line, _LABEL_CHARACTERS) for line in lines)


def contact_sheet(
    images: Shaped[np.ndarray, "n height width channels"],
    scores: Scores,
    *,
    masks: Shaped[np.ndarray, "m height width"] | None = None,
    titles: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    page: int = 1,
) -> Figure:
    """Draws scored images, one per row, beside their reconstructions, residuals and maps.

    Each column has one scale, so that its images can be compared. Masks are outlined on residuals
    and maps. Notebooks display the figure without pyplot.

    Args:
        images: the N images that were scored, uint8, uint16 or float in [0, 1].
        scores: what the detector's `score` returned for them.
        masks: N masks, non-zero where an image is anomalous.
        titles: N texts beside the rows; the scores by default.
        columns: names of the columns to show, in this order: `input`, the names of
            `scores.reconstructions`, `residual`, the names of `scores.maps` (`map_<name>` where a
            reconstruction has that name) and `mask`. All by default.
        page: which images to show, 24 at a time: 1 for the first 24. A message tells how many
            pages there are. All pages have the same scales.

    Raises:
        UserError: a column or the page does not exist, there are no images, or the numbers of
            images, titles or masks differ.
    """
    titles = [f"score {score:.4g}" for score in scores.image] if titles is None else titles
    counts = {"images": len(images), "scores": len(scores.image), "titles": len(titles)}
    if masks is not None:
        counts["masks"] = len(masks)
        masks = (np.asarray(masks) != 0).astype(np.uint8)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"contact_sheet: {listed}; pass the same number of each.")
    if not len(images):
        raise UserError("contact_sheet: there are no images; pass at least one.")
    available = sheet_columns(to_unit_interval(images), scores, masks)
    chosen = list(available) if columns is None else list(columns)
    unknown = [f"unknown column '{name}'" for name in chosen if name not in available]
    if unknown or not chosen:
        problem = unknown[0] if unknown else "'columns' is empty"
        raise UserError(f"contact_sheet: {problem}; choose from {', '.join(available)}.")
    num_pages = max(1, math.ceil(len(titles) / ROWS_PER_PAGE))
    if not 1 <= page <= num_pages:
        raise UserError(f"contact_sheet: there is no page {page}; choose from 1 to {num_pages}.")
    start, end = (page - 1) * ROWS_PER_PAGE, min(page * ROWS_PER_PAGE, len(titles))
    if num_pages > 1:
        logger.info(
            f"contact_sheet: page {page} of {num_pages}, images {start + 1:,} to {end:,} of "
            f"{len(titles):,}; page={page % num_pages + 1} shows others."
        )
    rows = np.arange(start, end)
    figure = draw_sheet([available[name].rows(rows) for name in chosen], titles[start:end])

    def png() -> tuple[bytes, dict[str, int]]:
        """The figure as PNG, and the CSS size to display it at, below its size in pixels."""
        width, height = figures.css_size(figure)
        return figures.to_png(figure), {"width": width, "height": height}

    # IPython draws figures by itself only after an import of pyplot; this is the hook it offers.
    figure._repr_png_ = png  # type: ignore[attr-defined]  # Matplotlib does not declare the hook
    return figure


def data_set_sheet(splits: Mapping[str, Split]) -> Figure:
    """Draws images of each split: a row of normal ones and, for test splits, one of anomalous ones.

    Images are spaced evenly over the split, so that they show many patients. Masks are outlined.

    Args:
        splits: name -> split; all images have the same size.
    """
    labels, images, masks = [], [], []
    for name, split in splits.items():
        for label, kind in ((0, "normal"), (1, "anomalous")):
            rows = np.flatnonzero(split.labels == label)
            if not len(rows):
                continue
            labels.append(f"{name}\n{kind} ({len(rows):,})")
            spaced = np.linspace(0, len(rows) - 1, min(_DATA_SET_COLUMNS, len(rows)))
            rows = rows[spaced.round().astype(int)]
            row = np.full((_DATA_SET_COLUMNS, *split.images.shape[1:]), np.nan, np.float32)
            row[: len(rows)] = to_unit_interval(split.images[rows])
            outlined = np.zeros(row.shape[:3], np.uint8)
            if split.masks is not None:
                outlined[: len(rows)] = split.masks[rows]
            images.append(row)
            masks.append(outlined)
    by_column = zip(np.stack(images, axis=1), np.stack(masks, axis=1), strict=True)
    return draw_sheet([image_column("", *column) for column in by_column], labels)
