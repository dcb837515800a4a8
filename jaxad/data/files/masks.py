"""Which pixels a mask marks, and what does not look like a mask of anomalies."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

from jaxad.errors import DataError, UserError
from jaxad.types import Split

#: Whole numbers up to this are numbers of classes: all but 0 are anomalous.
_MOST_CLASSES = 64

#: Of so few numbers of classes none needs an area.
_FEW_CLASSES = 8

#: How far a float may lie from a whole number: scaled integers are rounded.
_ROUNDING = 1e-3

#: Names that a message lists.
_NAMED = 3

#: Masks of a split that are compared with their images, at even distances.
_COMPARED = 200

#: The part of the rim that an inverted mask covers.
_RIM = 0.8

#: Intersection over union of a mask with what it is mistaken for.
_SAME = 0.95


def marked(
    values: Shaped[np.ndarray, "..."],
    name: str,
    *,
    is_lossy: bool = False,
    is_colour: bool = False,
) -> Bool[np.ndarray, "..."]:
    """Where a mask is not 0.

    Its values are 0 and any other one, or numbers of classes, or grey levels that each fill an
    area; of more than a few classes, half are to fill one. Levels along edges alone are what JPEG
    and resizing leave.

    Args:
        values: [H, W] or [X, Y, Z].
        name: for messages.
        is_lossy: whether the file's format changes values.
        is_colour: whether the values stand for colours, so that none is the number of a class.

    Raises:
        DataError: the values are negative or no numbers, or leave the edge uncertain.
    """
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: the mask is {values.dtype}; write it as whole numbers.")
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError(f"{name}: the mask has NaN or infinite values; write 0 or 1 there.")
    if lowest < 0:
        raise DataError(
            f"{name}: the mask has values below 0, down to {lowest:g}; write 0 where nothing is "
            "anomalous and 1 elsewhere."
        )
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if highest >= 0.5 and (np.abs(values - whole) <= _ROUNDING).all():
            values = whole
    levels = np.unique(values[values != 0])
    if len(levels) > 1 and (values != 0).all():
        raise DataError(
            f"{name}: the mask has {len(levels):,} {'colours' if is_colour else 'values'} and is "
            f"nowhere {'black' if is_colour else '0'}; write 0 where nothing is anomalous."
        )
    is_dark = len(levels) == 1 and not is_colour and levels[0] < 2 * _MOST_CLASSES
    if is_lossy and (len(levels) > 1 or is_dark):
        raise _uncertain(name, levels, is_colour)
    if len(levels) > 1 and not _are_distinct(values, levels, is_colour):
        raise _uncertain(name, levels, is_colour)
    return values != 0


def _uncertain(name: str, levels: Shaped[np.ndarray, " n"], is_colour: bool) -> DataError:
    plural = "s" * (len(levels) > 1)
    if is_colour:
        values = f"{len(levels):,} colour{plural} beside black"
    else:
        values = f"{len(levels):,} value{plural} beside 0, from {levels[0]:g} to {levels[-1]:g}"
    return DataError(
        f"{name}: the mask has {values}, as JPEG or resizing leaves them, so that its edge is "
        "uncertain; save it without loss (PNG, not JPEG) and with two values, 0 and 1 or 255."
    )


def _are_distinct(
    values: Shaped[np.ndarray, "..."], levels: Shaped[np.ndarray, " n"], is_colour: bool
) -> bool:
    """Whether the levels are classes, and not what a soft edge passes through."""
    if len(levels) > _MOST_CLASSES:
        return False
    is_whole = levels.dtype.kind != "f" or bool((levels == np.rint(levels)).all())
    if is_colour or not is_whole or levels[-1] > _MOST_CLASSES:
        return _num_areas(values, levels[:-1]) == len(levels) - 1
    # A class may be small everywhere; most levels of a soft edge are.
    return len(levels) <= _FEW_CLASSES or 2 * _num_areas(values, levels) >= len(levels)


def _num_areas(values: Shaped[np.ndarray, "..."], levels: Shaped[np.ndarray, " n"]) -> int:
    """How many of the levels fill 3 x 3 pixels somewhere."""
    block = np.ones((3, 3) + (1,) * (values.ndim - 2), bool)
    # Of a scan most is empty.
    values = values[ndimage.find_objects((values != 0).astype(np.int8))[0]]
    return sum(bool(ndimage.binary_erosion(values == level, block).any()) for level in levels)


def check_labels(
    source: str,
    ids: Sequence[str],
    labels: Shaped[np.ndarray, " n"],
    is_marked: Bool[np.ndarray, " n"],
) -> None:
    """Raises a DataError where masks say another thing than labels.

    Args:
        source: of the masks, for the message.
        ids: of the images.
        labels: 1 = anomalous.
        is_marked: whether the mask of each image marks a pixel.
    """
    normal = _at(ids, (labels == 0) & is_marked)
    empty = _at(ids, (labels == 1) & ~is_marked)
    parts = []
    if normal:
        verb = "is" if len(normal) == 1 else "are"
        parts.append(f"marks anomalous pixels of {named(normal)}, which {verb} labelled normal")
    if empty:
        verb = "is" if len(empty) == 1 else "are"
        parts.append(f"is empty, but {named(empty)} {verb} labelled anomalous")
    if parts:
        order = " (are masks and labels in one order?)" if len(normal) + len(empty) > 1 else ""
        raise DataError(f"{source}: {', and '.join(parts)}; correct the mask or the label{order}.")


def _at(ids: Sequence[str], wanted: Bool[np.ndarray, " n"]) -> list[str]:
    return [name for name, is_wanted in zip(ids, wanted, strict=True) if is_wanted]


def named(ids: Sequence[str]) -> str:
    """The first few of some names, and how many there are."""
    first = ", ".join(f"'{name}'" for name in ids[:_NAMED])
    if len(ids) == 1:
        return first
    return f"{len(ids):,} images ({first}{', ...' if len(ids) > _NAMED else ''})"


@dataclasses.dataclass(frozen=True)
class _Coverage:
    """What one mask covers.

    Attributes:
        share: of the image.
        is_inverted: it covers the rim and most of what is inside, but not all.
        is_whole: it covers the image.
        is_background: it covers the image's pixels of 0 and no others.
        is_foreground: it covers the image's other pixels and no others.
    """

    share: float
    is_inverted: bool
    is_whole: bool
    is_background: bool
    is_foreground: bool


def check_coverage(split: Split, source: str) -> str:
    """What is suspicious of the masks of a split as a whole; "" for nothing.

    One lesion may be large. What most masks of a split have in common is no lesion.

    Args:
        split: whose images lie in a frame of 0 where they were made square.
        source: for messages.

    Raises:
        UserError: half of the masks or more cover the background.
    """
    if split.masks is None:
        return ""
    places = np.flatnonzero(split.masks.any(axis=(1, 2)))
    if not len(places):
        return ""
    chosen = places[np.linspace(0, len(places) - 1, min(_COMPARED, len(places))).astype(int)]
    coverages = [_coverage(split.masks[place] != 0, split.images[place]) for place in chosen]
    half, of = len(coverages) / 2, f"of {len(coverages):,} masks that mark anything"
    is_wrong = [coverage.is_inverted or coverage.is_background for coverage in coverages]
    if _explain_whole_masks(sum(is_wrong), coverages, has_slices=split.positions is not None):
        pairs = zip(coverages, is_wrong, strict=True)
        is_wrong = [coverage.is_whole or wrong for coverage, wrong in pairs]
    if sum(is_wrong) >= half:
        first = split.ids[int(chosen[is_wrong.index(True)])]
        raise UserError(
            f"{source}: {sum(is_wrong):,} {of} cover the background, such as that of '{first}', as "
            "inverted ones do; a mask is not 0 where its image is anomalous: invert them, or "
            "remove all masks."
        )
    median = float(np.median([coverage.share for coverage in coverages]))
    num_foreground = sum(coverage.is_foreground for coverage in coverages)
    if num_foreground >= half:
        what = "cover the whole foreground of their image and nothing else"
        return f"{num_foreground:,} {of} {what}; do they mark anomalies?"
    if median > 0.5:
        return f"the masks cover {median:.0%} of an image in the median; do they mark anomalies?"
    return ""


def _explain_whole_masks(
    num_wrong: int, coverages: Sequence[_Coverage], *, has_slices: bool
) -> bool:
    """Whether so many inverted masks say that those of whole images are inverted empty ones.

    They are a quarter of all masks, or, of slices of scans, most of which have no lesion, half of
    those that leave anything out.
    """
    num_partial = sum(not coverage.is_whole for coverage in coverages)
    is_usual = num_wrong > 0 and 4 * num_wrong >= len(coverages)
    return is_usual or (has_slices and 0 < num_partial <= 2 * num_wrong)


def _coverage(mask: Bool[np.ndarray, "h w"], image: Shaped[np.ndarray, "h w c"]) -> _Coverage:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rim = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
    is_inverted = (
        box.size >= mask.size / 2 and rim.mean() >= _RIM and box.mean() > 0.5 and not box.all()
    )
    foreground = (image != 0).any(axis=-1)
    share = float(foreground.mean())
    return _Coverage(
        share=float(mask.mean()),
        is_inverted=bool(is_inverted),
        is_whole=bool(mask.all()),
        is_background=0.05 < share < 0.95 and _overlap(mask, ~foreground) >= _SAME,
        is_foreground=0.05 < share < 0.95 and _overlap(mask, foreground) >= _SAME,
    )


def _overlap(first: Bool[np.ndarray, "h w"], second: Bool[np.ndarray, "h w"]) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))
