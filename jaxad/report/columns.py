"""Columns of contact sheets and of cases: what a system makes of images, on readable scales."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxad.evaluate.examples import Examples
from jaxad.types import Scores

#: Titles of reconstructions, in the order of a sheet. The title of any other is its name.
RECONSTRUCTIONS = {"high": "high level", "low": "low level", "zero": "x_zero"}
#: Titles of anomaly maps. The title of any other is its name.
MAPS = {
    "pixel": "anomaly map",
    "residual": "map: residual",
    "ssim": "1 - SSIM",
    "flow": "flow: feature NLL",
    "high": "map: input - high",
    "low": "map: low level",
    "zero": "map: x_zero",
}
#: Reconstructions that are differences: their scale is centred at zero.
SIGNED = ("low", "zero")

Images = Float[np.ndarray, "m h w channels"]
Maps = Float[np.ndarray, "m h w"]
Masks = UInt8[np.ndarray, "m h w"]


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a contact sheet; values are shown from `low` to `high`.

    Attributes:
        title: its heading; "" for none, and no colour bar.
        images: one image per row: grey values [M, H, W], or RGB [M, H, W, 3], shown from 0 to
            `high`. NaN is shown as empty.
        colormap: a colormap of matplotlib.
        masks: regions to outline, 1 = anomalous; None for no outlines.
    """

    title: str
    images: Float[np.ndarray, "m h w *rgb"] | Bool[np.ndarray, "m h w"] | Masks
    low: float = 0.0
    high: float = 1.0
    colormap: str = "gray"
    masks: Masks | None = None

    def rows(self, chosen: Int[np.ndarray, " rows"]) -> "Column":
        """The column with only the chosen rows, in the order given."""
        masks = None if self.masks is None else self.masks[chosen]
        return dataclasses.replace(self, images=self.images[chosen], masks=masks)


def image_column(title: str, images: Images, masks: Masks | None = None) -> Column:
    """Images in [0, 1]: RGB, or the mean over any other number of channels."""
    shown = images if images.shape[-1] == 3 else images.mean(axis=-1)
    return Column(title, shown, masks=masks)


def _as_numpy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}


def reconstruction_columns(outputs: Examples | Scores) -> dict[str, Column]:
    """One column per reconstruction by name, the full one last; differences share one scale."""
    reconstructions = _as_numpy(outputs.reconstructions)
    order = [*RECONSTRUCTIONS, *(name for name in reconstructions if name not in RECONSTRUCTIONS)]
    order.sort(key=lambda name: name == "reconstruction")
    signed = [reconstructions[name] for name in SIGNED if name in reconstructions]
    limit = _round_up(max((float(np.quantile(abs(a), 0.995)) for a in signed), default=1.0))
    columns = {}
    for name in (name for name in order if name in reconstructions):
        title = RECONSTRUCTIONS.get(name, name.replace("_", " "))
        column = image_column(title, reconstructions[name])
        if name in SIGNED and column.images.ndim == 3:
            column = dataclasses.replace(column, low=-limit, high=limit)
        elif name in SIGNED:
            # RGB starts at 0: shift the scale so that a difference of zero is mid-grey.
            column = dataclasses.replace(column, images=column.images / (2 * limit) + 0.5)
        columns[name] = column
    return columns


def residual_column(images: Images, reconstructions: Images, masks: Masks | None = None) -> Column:
    """|input - reconstruction|, the mean over channels."""
    residual = abs(images - reconstructions).mean(axis=-1)
    high = _round_up(float(np.quantile(residual, 0.995)))
    return Column("residual", residual, 0.0, high, "magma", masks)


def map_column(title: str, maps: Maps, masks: Masks | None = None) -> Column:
    """Anomaly maps, scaled to the range between their 0.5th and 99.5th percentile."""
    low, high = (float(f"{q:.3g}") for q in np.quantile(maps, [0.005, 0.995]))
    # Start at zero unless that would take more than half of the range.
    low = 0.0 if maps.min() >= 0 and low < high / 2 else low
    return Column(title, maps, low, high if high > low else low + 1.0, "viridis", masks)


def system_columns(
    images: Images, outputs: Examples | Scores, masks: Masks | None = None
) -> dict[str, Column]:
    """The best reconstruction, if there is one, and what locates anomalies, last.

    That is the map of the pixel metrics, shown as the residual if it is that or its square.
    """
    pixel = np.asarray(outputs.pixel)
    columns = {"pixel": map_column(MAPS["pixel"], pixel, masks)}
    reconstruction = _as_numpy(outputs.reconstructions).get("reconstruction")
    if reconstruction is None:
        return columns
    if _repeats_residual(pixel, images, reconstruction):
        columns = {"residual": residual_column(images, reconstruction, masks)}
    return {"reconstruction": image_column("reconstruction", reconstruction), **columns}


def sheet_columns(
    images: Images, outputs: Examples | Scores, masks: Masks | None = None
) -> dict[str, Column]:
    """All columns of a contact sheet by name, on scales that all rows share.

    `images` are in [0, 1], `outputs` what a system made of them. Masks are outlined on residuals
    and maps, and shown in an extra column.
    """
    columns = {"input": image_column("input", images)}
    columns.update(reconstruction_columns(outputs))
    maps = _as_numpy(outputs.maps or {"pixel": outputs.pixel})
    if "reconstruction" in outputs.reconstructions:
        reconstruction = np.asarray(outputs.reconstructions["reconstruction"])
        columns["residual"] = residual_column(images, reconstruction, masks)
        maps = {
            name: array
            for name, array in maps.items()
            if not _repeats_residual(array, images, reconstruction)
        }
    for name, array in maps.items():
        # A map can have the name of a reconstruction.
        key = f"map_{name}" if name in columns else name
        columns[key] = map_column(MAPS.get(name, name), array, masks)
    if masks is not None:
        columns["mask"] = Column("mask", masks)
    return columns


def _round_up(value: float) -> float:
    """The next round number: a scale that is easy to read and that runs are likely to share."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 3, 5, 7, 10) if power * step >= value)


def _repeats_residual(maps: Maps, images: Images, reconstructions: Images) -> bool:
    """Whether maps are the residual or its square, up to a factor, and so show nothing new."""
    residual = abs(images - reconstructions)
    shown = (residual.mean(axis=-1), (residual**2).mean(axis=-1))
    return any(_is_multiple(maps, other) for other in shown)


def _is_multiple(a: Maps, b: Maps) -> bool:
    """Whether `a` is a constant times `b`."""
    factor = float((a * b).sum() / max(float((b * b).sum()), 1e-30))
    return bool(np.allclose(a, factor * b, rtol=1e-3, atol=1e-4 * float(abs(a).max())))
