"""Checks of the masks of a split: they agree with the labels, and they mark anomalies."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from jaxad.errors import DataError, UserError
from jaxad.types import Pixels, Split, row_blocks

#: Number of names that a message lists.
_NUM_LISTED = 3

#: Number of masks of a split that are compared with their images, at even distances.
_NUM_COMPARED = 200

#: Share of the rim of its bounding box that an inverted mask covers.
_RIM = 0.8

#: Intersection over union from which on a mask is taken for the background or the foreground.
_SAME = 0.95


def check_labels(
    source: str,
    ids: Sequence[str],
    labels: Shaped[np.ndarray, " n"],
    is_marked: Bool[np.ndarray, " n"],
) -> None:
    """Raises a DataError unless masks mark pixels of exactly those images whose label is 1."""
    normal = [*itertools.compress(ids, (labels == 0) & is_marked)]
    empty = [*itertools.compress(ids, (labels == 1) & ~is_marked)]
    parts = []
    if normal:
        verb = "is" if len(normal) == 1 else "are"
        parts.append(f"marks anomalous pixels of {list_ids(normal)}, which {verb} labelled normal")
    if empty:
        verb = "is" if len(empty) == 1 else "are"
        parts.append(f"is empty, but {list_ids(empty)} {verb} labelled anomalous")
    if parts:
        order = " (are masks and labels in one order?)" if len(normal) + len(empty) > 1 else ""
        raise DataError(f"{source}: {', and '.join(parts)}; correct the mask or the label{order}.")


def list_ids(ids: Sequence[str]) -> str:
    """Returns the first few ids and their number, for a message."""
    first = ", ".join(f"'{name}'" for name in ids[:_NUM_LISTED])
    if len(ids) == 1:
        return first
    return f"{len(ids):,} images ({first}{', ...' if len(ids) > _NUM_LISTED else ''})"


def are_marked(masks: UInt8[Pixels, "n h w"]) -> Bool[np.ndarray, " n"]:
    """Tells which masks mark any pixel."""
    marked = np.zeros(len(masks), bool)
    for rows in row_blocks(masks):
        marked[rows] = masks[rows].any(axis=(1, 2))
    return marked


@dataclasses.dataclass(frozen=True)
class _Coverage:
    """What one mask covers of its image."""

    share: float  # of the image
    is_whole: bool
    is_inverted: bool  # it covers the rim and most of the inside, but not all
    is_background: bool  # it covers the pixels that are 0 and no others
    is_foreground: bool  # it covers the pixels that are not 0 and no others


def check_coverage(split: Split, source: str) -> str:
    """Returns a note on what the masks of a split have in common that no lesions have; "" if none.

    A single lesion may be large, but an area that most masks of a split share is not a lesion.
    Pixels that are 0 count as background: images that were padded to squares have a frame of them.

    Raises:
        UserError: at least half of the masks cover the background.
    """
    if split.masks is None:
        return ""
    indices = np.flatnonzero(are_marked(split.masks))
    if not len(indices):
        return ""
    sample = np.linspace(0, len(indices) - 1, min(_NUM_COMPARED, len(indices))).astype(int)
    chosen = indices[sample]
    coverages = [_coverage(split.masks[index] != 0, split.images[index]) for index in chosen]
    half, of = len(coverages) / 2, f"of {len(coverages):,} masks that mark anything"
    is_wrong = [coverage.is_inverted or coverage.is_background for coverage in coverages]
    if _are_whole_masks_inverted(sum(is_wrong), coverages, split.positions is not None):
        pairs = zip(coverages, is_wrong, strict=True)
        is_wrong = [coverage.is_whole or wrong for coverage, wrong in pairs]
    if sum(is_wrong) >= half:
        first = split.ids[int(chosen[is_wrong.index(True)])]
        raise UserError(
            f"{source}: {sum(is_wrong):,} {of} cover the background, such as that of '{first}', so "
            "they seem to be inverted; a mask must not be 0 where its image is anomalous: invert "
            "them, or remove all masks."
        )
    num_foreground = sum(coverage.is_foreground for coverage in coverages)
    if num_foreground >= half:
        covered = "cover the whole foreground of their image and nothing else"
        return f"{num_foreground:,} {of} {covered}; do they mark anomalies?"
    median = float(np.median([coverage.share for coverage in coverages]))
    if median > 0.5:
        return f"the masks cover {median:.0%} of an image in the median; do they mark anomalies?"
    return ""


def _are_whole_masks_inverted(
    num_wrong: int, coverages: Sequence[_Coverage], has_slices: bool
) -> bool:
    """Tells whether masks that cover whole images are inverted masks of normal images.

    They are if a quarter of all masks are inverted, or, for slices of scans, most of which have no
    lesion, half of those that leave anything out.
    """
    num_partial = sum(not coverage.is_whole for coverage in coverages)
    is_frequent = num_wrong > 0 and 4 * num_wrong >= len(coverages)
    return is_frequent or (has_slices and 0 < num_partial <= 2 * num_wrong)


def _coverage(mask: Bool[np.ndarray, "h w"], image: Shaped[np.ndarray, "h w c"]) -> _Coverage:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rim = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
    is_inverted = (
        box.size >= mask.size / 2 and rim.mean() >= _RIM and box.mean() > 0.5 and not box.all()
    )
    foreground = (image != 0).any(axis=-1)
    has_background = 0.05 < float(foreground.mean()) < 0.95
    return _Coverage(
        share=float(mask.mean()),
        is_whole=bool(mask.all()),
        is_inverted=bool(is_inverted),
        is_background=has_background and _overlap(mask, ~foreground) >= _SAME,
        is_foreground=has_background and _overlap(mask, foreground) >= _SAME,
    )


def _overlap(first: Bool[np.ndarray, "h w"], second: Bool[np.ndarray, "h w"]) -> float:
    """Returns the intersection over union."""
    return float((first & second).sum() / max(1, (first | second).sum()))
