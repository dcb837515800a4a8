"""Coordinates in a slice: millimetres, pixels and shares inside a foreground.

A point is (x, y) in mm from the centre of the slice, x to the right and y up. The shorter side of
the slice is the field of view. Arrays are indexed (row, column), the first row at the top.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxad.data.synthetic.template import spacing_mm

WELL_INSIDE = 0.95
"""Share of an outline's points that must be foreground for a position to be accepted."""


def plane_axes_mm(
    shape: tuple[int, int],
) -> tuple[Float[np.ndarray, " h"], Float[np.ndarray, " w"]]:
    """Returns y of the rows and x of the columns (pixel centres), in mm, of an (h, w) slice."""
    width = spacing_mm(min(shape))
    rows, columns = ((np.arange(size) - (size - 1) / 2) * width for size in shape)
    return rows[::-1], columns


def nearest_pixel(
    points: Float[np.ndarray, "2 ..."], shape: tuple[int, int]
) -> tuple[Int[np.ndarray, "..."], Int[np.ndarray, "..."]]:
    """Returns row and column of the pixels nearest to points in mm, in an (h, w) slice."""
    width = spacing_mm(min(shape))
    height_px, width_px = shape
    column = np.clip(np.rint((width_px - 1) / 2 + points[0] / width), 0, width_px - 1)
    row = np.clip(np.rint((height_px - 1) / 2 - points[1] / width), 0, height_px - 1)
    return np.asarray(row, dtype=int), np.asarray(column, dtype=int)


def local_axes(
    rows: Float[np.ndarray, " h"],
    columns: Float[np.ndarray, " w"],
    centre: Float[np.ndarray, "2"],
    angle: float,
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Returns the coordinates in mm of all pixels along and across an axis through `centre`."""
    x, y = columns[None, :] - centre[0], rows[:, None] - centre[1]
    return np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y


def ellipse_outline(half_mm: Float[np.ndarray, "2"], angle: float) -> Float[np.ndarray, "2 m"]:
    """Returns points (x, y) in mm on and inside an ellipse around 0."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    unit = np.concatenate([[np.cos(turn), np.sin(turn)]] * 2, axis=1)
    unit[:, 24:] *= 0.6
    along, across = half_mm[:, None] * unit
    x = np.cos(angle) * along - np.sin(angle) * across
    y = np.sin(angle) * along + np.cos(angle) * across
    return np.stack([x, y])


def inside_share(
    foreground: Bool[np.ndarray, "h w"],
    candidates: Float[np.ndarray, "2 c"],
    outline: Float[np.ndarray, "2 m"],
) -> Float[np.ndarray, " c"]:
    """Returns the share of an outline's points in the foreground, for each candidate centre."""
    points = candidates[:, :, None] + outline[:, None, :]
    row, column = nearest_pixel(points, foreground.shape)
    return foreground[row, column].mean(axis=-1)
