"""Label maps: are pixels labels of regions, as in masks, or measured values, as in images?"""

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

#: Up to this number of different values, pixels are labels, wherever they lie.
_FEW_LABELS = 8

#: Share of neighbours with the same label from which on more values are labels, too.
_SAME = 0.5

#: Longer sides are subsampled: in large smooth images, most neighbours are the same as well.
_LONGEST = 512

#: A pixel is nearly black or white up to this distance, as a share of the range of values.
_NEARLY = 0.1

#: Share of the pixels of a softened mask that are nearly black or white.
_EXTREME = 0.8

#: Least share of white pixels among those that are not black, or of black ones among those that are
#: not white, whichever colour is rarer. Images on a black background have less.
_EXTREME_OF_REST = 0.3

#: Least share of the pixels of a black or white area that have the same of 256 grey levels.
_EVEN = 0.3


def is_label_map(values: Shaped[np.ndarray, "..."]) -> bool:
    """Tells whether pixels [H, W], [H, W, 1] or [H, W, 3], or voxels [X, Y, Z], are labels.

    They are if there are few different values; if most neighbours are the same, not counting the
    background and saturated areas; or if nearly all pixels are black or white in even areas, as in
    masks that were blurred, resized or saved as JPEG.
    """
    values = values[tuple(slice(None, None, -(-size // _LONGEST) or 1) for size in values.shape)]
    if not values.size or values.dtype.kind not in "buif":
        return False
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return False
    codes = brightness = values
    if values.ndim == 3 and values.shape[-1] == 3 and values.dtype in (np.uint8, np.uint16):
        red, green, blue = np.moveaxis(values.astype(np.int64), -1, 0)
        codes, brightness = (red << 32) + (green << 16) + blue, values.max(axis=-1)
    distinct, counts = np.unique(codes, return_counts=True)
    if len(distinct) <= _FEW_LABELS:
        return True
    return _has_regions(codes, distinct, counts) or _is_softened(brightness)


def _has_regions(
    codes: Shaped[np.ndarray, "..."], distinct: Shaped[np.ndarray, " n"], counts: np.ndarray
) -> bool:
    """Tells whether most neighbours are the same, and others differ by more than one step."""
    codes = _without_repeats(codes)
    ignored = (distinct[0], distinct[-1], distinct[counts.argmax()])
    num_same, steps = 0, []
    for axis in range(min(codes.ndim, 2)):
        first = codes.take(range(1, codes.shape[axis]), axis)
        second = codes.take(range(codes.shape[axis] - 1), axis)
        is_same = first == second
        num_same += int((is_same & ~np.isin(first, ignored)).sum())
        steps.append(np.abs(first[~is_same].astype(np.float64) - second[~is_same]))
    changes = np.concatenate(steps)
    if num_same < _SAME * (num_same + changes.size):
        return False
    smallest = float(np.diff(distinct.astype(np.float64)).min())
    return not changes.size or float(np.median(changes)) > 1.5 * smallest


def _without_repeats(codes: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Removes rows and columns that repeat the previous one, as in enlarged images."""
    for axis in range(min(codes.ndim, 2)):
        lines = np.moveaxis(codes, axis, 0)
        differs = (lines[1:] != lines[:-1]).reshape(len(lines) - 1, -1).any(axis=1)
        codes = codes.compress(np.concatenate([[True], differs]), axis)
    return codes


def _is_softened(values: Shaped[np.ndarray, "..."]) -> bool:
    """Tells whether there are even black and white areas and little else."""
    numbers = values.astype(np.float64)
    lowest, extent = float(numbers.min()), float(np.ptp(numbers))
    black = numbers < lowest + _NEARLY * extent
    white = numbers > lowest + (1 - _NEARLY) * extent
    fewer, more = sorted((float(black.mean()), float(white.mean())))
    return (
        fewer + more >= _EXTREME
        and fewer >= _EXTREME_OF_REST * (1 - more)
        and all(_has_area(area) for area in (black, white))
        and all(_is_even(numbers[area] - lowest, extent) for area in (black, white))
    )


def _has_area(area: Bool[np.ndarray, "..."]) -> bool:
    """Tells whether 2 x 2 pixels are set somewhere."""
    block = np.ones((2, 2)[: area.ndim] + (1,) * (area.ndim - 2), bool)
    return bool(ndimage.binary_erosion(area, block).any())


def _is_even(numbers: Shaped[np.ndarray, " n"], extent: float) -> bool:
    """Tells whether one grey level is common: white areas of images have noise."""
    levels = np.bincount(np.rint(255 / extent * numbers).astype(np.int64))
    return bool(levels.max() >= _EVEN * numbers.size)
