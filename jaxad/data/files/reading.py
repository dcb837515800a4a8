"""Reading many items: in parallel, each once; bad files are counted and reported."""

import collections
import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import joblib
import numpy as np
from jaxtyping import UInt8

from jaxad.data.files.items import Item, Reading, Rows, read_item
from jaxad.data.files.workers import can_start_processes, parallel, reserve, shared_array
from jaxad.data.prepare.preparation import to_depth
from jaxad.errors import UserError
from jaxad.runtime import interrupts
from jaxad.runtime.progress import counted, progress_bar
from jaxad.types import FilesRead, Split

logger = logging.getLogger(__name__)

#: Below these numbers, threads of this process read the items.
_FEW = {"image": 200, "scan": 12}

#: Least and largest number of images that a process reads at a time: handing over each result costs
#: time, and at the end processes wait for the last one.
_CHUNK_SIZES = (8, 96)

#: Number of bad files that a message lists.
_NUM_LISTED = 5

#: What a blank image is.
_BLANK = "every pixel has the same value"


def read_items(
    items: Sequence[Item], reading: Reading, progress: str, shared: np.memmap | None = None
) -> Iterator[Rows]:
    """Yields what each item becomes, in order, read in parallel; see `read_item` for bad items.

    The progress bar has the label `progress`; "" for no bar. With `shared`, [N, S, S, C], an array
    that processes share, the image of an item, if it is of the array's type, is written to its row,
    and the item's `images` are a view of that row.
    """
    few, size = _are_few(items, reading), 1
    if reading.kind == "image" and not few:
        least, largest = _CHUNK_SIZES
        size = max(least, min(largest, len(items) // (8 * joblib.cpu_count())))
    with parallel(few=few) as workers:
        chunks = workers(
            joblib.delayed(_read_chunk)(items[start : start + size], reading, shared, start)
            for start in range(0, len(items), size)
        )
    unit = "image" if reading.kind == "image" else "scan"
    is_silent = len(items) < 20 or not progress
    with progress_bar(total=len(items), desc=progress, unit=unit, disable=is_silent) as bar:
        index = 0
        for chunk in chunks:
            for result in chunk:
                if isinstance(result, Rows) and result.note:
                    logger.warning(result.note)
                if isinstance(result, Rows) or shared is None:
                    yield result
                else:
                    item, image = items[index], np.asarray(shared)[index : index + 1]
                    yield Rows(item, image, np.array([item.label or 0], np.int32), **result)
                index += 1
            bar.update(len(chunk))
            interrupts.check()


def _are_few(items: Sequence[Item], reading: Reading) -> bool:
    return len(items) < _FEW["image" if reading.kind == "image" else "scan"]


def _read_chunk(
    items: Sequence[Item], reading: Reading, shared: np.memmap | None, start: int
) -> list[Any]:
    """Returns the `Rows` of items, or, for an image in the shared array, their other fields."""
    if shared is not None:
        _keep_freed_memory()
        shared = shared if reserve(shared, start, len(items)) else None
    results: list[Any] = []
    for index, item in enumerate(items, start):
        rows = read_item(item, reading)
        fits = shared is not None and len(rows.images) == 1 and rows.images.dtype == shared.dtype
        if shared is not None and fits:
            shared[index] = rows.images[0]
            fields = ("positions", "masks", "size", "lowest", "highest")
            results.append({name: getattr(rows, name) for name in fields})
        else:
            results.append(rows)
    return results


@functools.cache
def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next images; once per process.

    glibc returns large blocks to the system until a larger block was freed, and getting them back
    costs more than decoding a photograph. Other C libraries ignore this.
    """
    np.empty(2**25 - 2**16, np.uint8)


class FilesSummary:
    """Collects the facts about the files of a split, item by item."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._blank: list[str] = []
        self._num_left_out = 0
        self._num_images = 0
        self._num_noisy = 0
        self._read: list[tuple[str, float | None, float | None]] = []

    def add(self, rows: Rows) -> None:
        """Counts an item."""
        self._num_left_out += rows.num_left_out
        self._num_images += len(rows.images)
        self._num_noisy += rows.is_noisy
        if rows.error:
            self._errors.append(rows.error)
        elif rows.blank:
            self._blank.append(rows.item.id)
        else:
            self._read.append((rows.size, rows.lowest, rows.highest))

    def finish(self, name: str) -> FilesRead:
        """Returns the summary of the split `name`; raises a UserError if it has no images."""
        count = len(self._errors) + len(self._blank) + len(self._read)
        if not self._num_images:
            reasons = [*self._errors, *(f"'{id_}' is blank ({_BLANK})" for id_ in self._blank)]
            first = f"; the first: {reasons[0]}" if reasons else ""
            raise UserError(f"{name}: none of {counted(count, 'file')} gave a usable image{first}")
        return FilesRead(
            count=count,
            skipped=tuple(self._errors),
            slices_left_out=self._num_left_out,
            sizes=dict(collections.Counter(size for size, _, _ in self._read).most_common()),
            lowest=min((low for _, low, _ in self._read if low is not None), default=None),
            highest=max((high for _, _, high in self._read if high is not None), default=None),
            blank=tuple(self._blank),
            num_noisy=self._num_noisy,
        )


def read_split(items: Sequence[Item], reading: Reading, name: str, source: str = "") -> Split:
    """Reads items as a split, in their order.

    Args:
        items: the images or scans.
        reading: how they are read.
        name: the name of the split, for messages and the progress bar.
        source: the folder or table that lists the items, for messages.

    Raises:
        DataError: a file cannot be used, and `on_error` is `raise`.
        UserError: none of the files gave a usable image, or only some of the anomalies have masks.
    """
    side, channels = reading.preparation.image_size, reading.preparation.channels
    with contextlib.ExitStack() as stack:
        shared = None
        if reading.kind == "image" and not _are_few(items, reading) and can_start_processes():
            shape = (len(items), side, side, channels)
            shared = stack.enter_context(shared_array(shape, np.dtype(np.uint8)))
        rows = read_items(items, reading, name, shared)
        return _join(rows, len(items), name, shared, f"{source}: " if source else "")


def _join(
    results: Iterable[Rows], count: int, name: str, shared: np.memmap | None, prefix: str
) -> Split:
    """Joins the rows of `count` items; without a copy if all images lie in the shared array.

    `prefix` begins the message on missing masks.
    """
    summary = FilesSummary()
    parts = []
    for rows in results:
        summary.add(rows)
        if len(rows.images):
            parts.append(rows)
    files = summary.finish(name)
    is_shared = shared is not None and all(np.may_share_memory(r.images, shared) for r in parts)
    has_gaps = len(parts) < count  # of items without an image
    if shared is not None and is_shared and (not has_gaps or reserve(shared, 0, len(parts))):
        images = np.asarray(shared)[: len(parts)]
        if has_gaps:
            for place, rows in enumerate(parts):
                images[place] = rows.images[0]
    else:
        # One type for all: uint16 if any image is.
        dtype = max((rows.images.dtype for rows in parts), key=lambda dtype: dtype.itemsize)
        images = np.concatenate([to_depth(rows.images, dtype) for rows in parts])
    positions = [rows.positions for rows in parts if rows.positions is not None]
    return Split(
        images=images,
        labels=np.concatenate([rows.labels for rows in parts]),
        ids=tuple(id_ for rows in parts for id_ in rows.ids),
        groups=tuple(rows.item.group for rows in parts for _ in rows.images),
        masks=_join_masks(parts, f"{prefix}{name}"),
        positions=np.concatenate(positions) if len(positions) == len(parts) else None,
        files=files,
        unnamed=frozenset(rows.item.group for rows in parts if rows.item.is_unnamed),
        extra={
            name: tuple(rows.item.extra[name] for rows in parts for _ in rows.images)
            for name in parts[0].item.extra
        },
    )


def _join_masks(parts: Sequence[Rows], source: str) -> UInt8[np.ndarray, "n s s"] | None:
    """Joins masks, with empty ones for normal images; returns None if there are none at all."""
    if all(rows.masks is None for rows in parts):
        return None
    anomalous = [rows for rows in parts if rows.labels.any()]
    if lacking := [rows for rows in anomalous if rows.masks is None]:
        have = "has" if len(lacking) == 1 else "have"
        raise UserError(
            f"{source}: {len(lacking):,} of {counted(len(anomalous), 'anomalous file')} {have} no "
            f"mask, such as '{lacking[0].item.id}', while others have one; a split has masks for "
            "all of its anomalies or for none: add them, or remove all masks."
        )
    masks = []
    for rows in parts:
        empty = np.zeros(rows.images.shape[:3], np.uint8)
        masks.append(empty if rows.masks is None else rows.masks)
    return np.concatenate(masks)


def describe_skipped(name: str, files: FilesRead) -> str:
    """Returns a line on the files that were skipped; "" if there are none."""
    if not files.skipped:
        return ""
    first = " | ".join(files.skipped[:_NUM_LISTED])
    num_others = len(files.skipped) - _NUM_LISTED
    more = f" | and {num_others} more" if num_others > 0 else ""
    return (
        f"{name}: skipped {len(files.skipped):,} of {counted(files.count, 'file')}: {first}{more}"
    )


def describe_blank(name: str, files: FilesRead) -> str:
    """Returns a line on the blank images that were left out; "" if there are none."""
    if not files.blank:
        return ""
    return (
        f"note: {name}: {len(files.blank):,} of {files.count:,} images are blank ({_BLANK}) and "
        f"are left out; the first: '{files.blank[0]}'."
    )


def describe_noise(name: str, files: FilesRead) -> str:
    """Returns a line on files whose background is noise; "" if there are none."""
    if not files.num_noisy:
        return ""
    return (
        f"warning: {name}: in {files.num_noisy:,} of {counted(files.count, 'file')} the background "
        "is noise instead of 0, and intensities are normalised over it; set "
        "--config.data.preprocess.foreground=otsu to normalise over the object alone."
    )


def describe_noise_for_run(name: str, num_noisy: int, count: int, first: str = "") -> str:
    """Returns a line on files with a noisy background, for a run whose preparation is fixed.

    Args:
        name: where the files are.
        num_noisy: number of files whose background is noise; "" is returned for 0.
        count: number of all files.
        first: id of the first such file; "" to name none.
    """
    if not num_noisy:
        return ""
    example = f"; the first: '{first}'" if first else ""
    return (
        f"warning: {name}: in {num_noisy:,} of {counted(count, 'file')} the background is noise "
        "instead of 0, and the run normalises over it (config.data.preprocess.foreground=nonzero)"
        f"{example}. Set the background of these files to 0, or train a run with foreground=otsu; "
        "otherwise their scores do not compare with those of clean files."
    )


def check_blank(source: str, files: FilesRead) -> None:
    """Raises a UserError if most images of a split are blank."""
    if 2 * len(files.blank) > files.count:
        raise UserError(
            f"{source}: {len(files.blank):,} of {files.count:,} images are blank ({_BLANK}); the "
            f"first: '{files.blank[0]}'. Check how they were exported, or remove the blank ones."
        )
