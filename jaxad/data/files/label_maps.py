"""Whether pixels are labels of regions, as those of masks are, or measured as those of images."""

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

#: So few different values are labels, however they are spread.
_FEW_LABELS = 8

#: The share of neighbours with the same label, from which on more values are labels.
_SAME = 0.5

#: Longer sides are thinned out: of large smooth images, too, many neighbours are the same.
_LONGEST = 512

#: How near to black or white a pixel of a softened mask is, as a share of its range of values.
_NEARLY = 0.1

#: The share of the pixels of a softened mask that are nearly black or white.
_MOST_PIXELS = 0.8

#: The share of white pixels among those that are not black (or the other way round, where there
#: are fewer black ones). Images on a black background have a smaller one.
_MOST_OF_REST = 0.3

#: The share of the pixels of a black or white area that have the same one of 256 grey levels.
_EVEN = 0.3


def is_label_map(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether pixels are labels.

    They are where there are few different values; where most neighbours are the same, other than
    in the background and in saturated areas; or where nearly all pixels are black or white, as in
    masks that were blurred, resized or saved as JPEG.

    Args:
        values: of the pixels of an image, [H, W], [H, W, 1] or [H, W, 3], or of the voxels of a
            scan, [X, Y, Z].
    """
    values = _thinned(values)
    if not values.size or values.dtype.kind not in "buif":
        return False
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return False
    codes, brightness = _without_colour(values)
    distinct, counts = np.unique(codes, return_counts=True)
    if len(distinct) <= _FEW_LABELS:
        return True
    return _has_regions(codes, distinct, counts) or _is_softened(brightness)


def _thinned(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return values[tuple(slice(None, None, -(-size // _LONGEST) or 1) for size in values.shape)]


def _without_colour(
    values: Shaped[np.ndarray, "..."],
) -> tuple[Shaped[np.ndarray, "..."], Shaped[np.ndarray, "..."]]:
    """A number for each colour, and the brightest channel; others as they are."""
    if values.ndim == 3 and values.shape[-1] == 3 and values.dtype in (np.uint8, np.uint16):
        red, green, blue = np.moveaxis(values.astype(np.int64), -1, 0)
        return (red << 32) + (green << 16) + blue, values.max(axis=-1)
    return values, values


def _has_regions(
    codes: Shaped[np.ndarray, "..."], distinct: Shaped[np.ndarray, " n"], counts: np.ndarray
) -> bool:
    """Whether most neighbours have the same value, and others do not just differ by a step."""
    codes = _without_repeats(codes)
    flat = (distinct[0], distinct[-1], distinct[counts.argmax()])
    num_same, steps = 0, []
    for axis in range(min(codes.ndim, 2)):
        first = codes.take(range(1, codes.shape[axis]), axis)
        second = codes.take(range(codes.shape[axis] - 1), axis)
        is_same = first == second
        num_same += int((is_same & ~np.isin(first, flat)).sum())
        steps.append(np.abs(first[~is_same].astype(np.float64) - second[~is_same]))
    changes = np.concatenate(steps)
    if num_same < _SAME * (num_same + changes.size):
        return False
    smallest = float(np.diff(distinct.astype(np.float64)).min())
    return not changes.size or float(np.median(changes)) > 1.5 * smallest


def _without_repeats(codes: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Pixels without rows and columns that repeat the last one: enlarging an image adds such."""
    for axis in range(min(codes.ndim, 2)):
        lines = np.moveaxis(codes, axis, 0)
        differs = (lines[1:] != lines[:-1]).reshape(len(lines) - 1, -1).any(axis=1)
        codes = codes.compress(np.concatenate([[True], differs]), axis)
    return codes


def _is_softened(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether there are even black and white areas, and little else."""
    numbers = values.astype(np.float64)
    lowest, extent = float(numbers.min()), float(np.ptp(numbers))
    black = numbers < lowest + _NEARLY * extent
    white = numbers > lowest + (1 - _NEARLY) * extent
    fewer, more = sorted((float(black.mean()), float(white.mean())))
    return (
        fewer + more >= _MOST_PIXELS
        and fewer >= _MOST_OF_REST * (1 - more)
        and all(_has_area(place) for place in (black, white))
        and all(_is_even(numbers[place] - lowest, extent) for place in (black, white))
    )


def _has_area(places: Bool[np.ndarray, "..."]) -> bool:
    """Whether 2 x 2 pixels are among them somewhere."""
    block = np.ones((2, 2)[: places.ndim] + (1,) * (places.ndim - 2), bool)
    return bool(ndimage.binary_erosion(places, block).any())


def _is_even(numbers: Shaped[np.ndarray, " n"], extent: float) -> bool:
    """Whether a grey level is common: white areas of images have noise."""
    levels = np.bincount(np.rint(255 / extent * numbers).astype(np.int64))
    return bool(levels.max() >= _EVEN * numbers.size)
