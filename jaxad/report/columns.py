"""Columns of contact sheets and cases: what a system makes of images, on readable scales."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from jaxad.evaluate.examples import Examples
from jaxad.report.figures import Column

#: Headings of reconstructions, in the order of a sheet; others follow by their own names.
RECONSTRUCTIONS = {"high": "high level", "low": "low level", "zero": "x_zero"}
#: Headings of anomaly maps; others have their own names.
MAPS = {
    "pixel": "anomaly map",
    "ssim": "1 - SSIM",
    "flow": "flow: feature nll",
    "high": "map: input - high",
    "low": "map: low level",
    "zero": "map: x_zero",
}
#: Reconstructions that are differences: shown around zero.
SIGNED = ("low", "zero")


def heading(name: str) -> str:
    """What stands above a reconstruction's column."""
    return RECONSTRUCTIONS.get(name, name.replace("_", " "))


def rounded_up(value: float) -> float:
    """The next round number: scales that people read and that runs are likely to share."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 3, 5, 7, 10) if power * step >= value)


def as_shown(images: Float[np.ndarray, "m h w channels"]) -> Float[np.ndarray, "m h w *rgb"]:
    """Colours, or the mean over other channels."""
    return images if images.shape[-1] == 3 else images.mean(axis=-1)


def reconstruction_columns(
    reconstructions: Mapping[str, Float[np.ndarray, "m h w channels"]],
    heading: Callable[[str], str] = heading,
) -> dict[str, Column]:
    """A column of each reconstruction by its name, parts first; differences share one scale."""
    order = [*RECONSTRUCTIONS, *(name for name in reconstructions if name not in RECONSTRUCTIONS)]
    order.sort(key=lambda name: name == "reconstruction")
    signed = [reconstructions[name] for name in SIGNED if name in reconstructions]
    limit = rounded_up(max((float(np.quantile(abs(a), 0.995)) for a in signed), default=1.0))
    columns = {}
    for name in (name for name in order if name in reconstructions):
        shown = as_shown(reconstructions[name])
        if name in SIGNED and shown.ndim == 3:
            columns[name] = Column(heading(name), shown, -limit, limit)
        else:
            # Colours have no scale around zero: zero is shown as mid-grey.
            shown = shown / (2 * limit) + 0.5 if name in SIGNED else shown
            columns[name] = Column(heading(name), shown)
    return columns


def sheet_columns(examples: Examples) -> dict[str, Column]:
    """The columns of a run's slices by what they show, on scales that all slices share."""
    columns = {"input": Column("input", as_shown(examples.images))}
    columns.update(reconstruction_columns(examples.reconstructions))
    maps = dict(examples.maps) or {"pixel": examples.pixel}
    if "reconstruction" in examples.reconstructions:
        reconstruction = examples.reconstructions["reconstruction"]
        columns["residual"] = residual_column("residual", examples.images, reconstruction)
        squares = ((examples.images - reconstruction) ** 2).mean(axis=-1)
        shown = (columns["residual"].images, squares)
        maps = {
            name: array
            for name, array in maps.items()
            if not any(_proportional(array, other) for other in shown)
        }
    for name, array in maps.items():
        # A level's map is not its reconstruction.
        key = f"map_{name}" if name in columns else name
        columns[key] = map_column(MAPS.get(name, name), array)
    if examples.masks is not None:
        columns["mask"] = Column("mask", examples.masks)
    return columns


def residual_column(
    title: str,
    images: Float[np.ndarray, "m h w channels"],
    reconstructions: Float[np.ndarray, "m h w channels"],
) -> Column:
    """|image - reconstruction|."""
    residual = abs(images - reconstructions).mean(axis=-1)
    high = rounded_up(float(np.quantile(residual, 0.995)))
    return Column(title, residual, 0.0, high, "magma", outline=True)


def map_column(title: str, maps: Float[np.ndarray, "m h w"]) -> Column:
    """Anomaly maps."""
    low, high = scale_of_map(maps)
    return Column(title, maps, low, high, "viridis", outline=True)


def scale_of_map(maps: Float[np.ndarray, "m h w"]) -> tuple[float, float]:
    """The values shown darkest and brightest."""
    low, high = (float(f"{q:.3g}") for q in np.quantile(maps, [0.005, 0.995]))
    # From zero, unless that would hide what there is to see.
    low = 0.0 if maps.min() >= 0 and low < high / 2 else low
    return low, high if high > low else low + 1.0


def _proportional(a: Float[np.ndarray, "m h w"], b: Float[np.ndarray, "m h w"]) -> bool:
    """Whether a is a constant times b."""
    factor = float((a * b).sum() / max(float((b * b).sum()), 1e-30))
    return bool(np.allclose(a, factor * b, rtol=1e-3, atol=1e-4 * float(abs(a).max())))
