"""Reading many files: in parallel, each once, the bad ones counted and told."""

import collections
import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import joblib
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from jaxad.data.files.items import Item, Reading, Rows, left_out, read_item
from jaxad.data.files.shared import shared_array, take_place
from jaxad.data.files.workers import can_start_processes, parallel
from jaxad.data.prepare.preparation import to_depth
from jaxad.errors import DataError, UserError
from jaxad.runtime import interrupts
from jaxad.types import FilesRead, Split

#: Fewer are read by threads of this process.
_FEW = {"image": 200, "scan": 12}

#: Images that a process reads at a time, at least and at most: handing them over costs time, and
#: at the end processes wait for the last.
_CHUNKS = (8, 96)

#: Names of bad files that are told one by one.
_TOLD = 5


def read_items(
    items: Sequence[Item], reading: Reading, progress: str, room: np.memmap | None = None
) -> Iterator[Rows]:
    """What each item becomes, in their order, read in parallel under a progress bar.

    With `on_error="skip"` a bad one has no images and its `error`.

    Args:
        items: what to read.
        reading: how.
        progress: what the bar says; "": there is none.
        room: [N, S, S, C], shared with other processes: an image of its type is put there, at the
            place of its item, and the item's `images` are a view of it.

    Raises:
        DataError: a file cannot be used, and `on_error` is `raise`.
    """
    unit = "image" if reading.kind == "image" else "scan"
    size = 1
    if reading.kind == "image" and not _is_few(items, reading):
        least, most = _CHUNKS
        size = max(least, min(most, len(items) // (8 * joblib.cpu_count())))
    # Threads wait for each other where every image takes fresh memory.
    with parallel(few=_is_few(items, reading)) as workers:
        chunks = workers(
            joblib.delayed(_read_chunk)(items[start : start + size], reading, room, start)
            for start in range(0, len(items), size)
        )
    there = None if room is None else np.asarray(room)
    is_short = len(items) < 20 or not progress
    with tqdm(total=len(items), desc=progress, unit=unit, disable=is_short) as bar:
        place = 0
        for chunk in chunks:
            for found in chunk:
                if isinstance(found, Rows) or there is None:
                    yield found
                else:
                    item, image = items[place], there[place : place + 1]
                    label = np.array([item.label or 0], np.int32)
                    yield Rows(item, image, label, None, *found)
                place += 1
            bar.update(len(chunk))
            interrupts.check()


def _is_few(items: Sequence[Item], reading: Reading) -> bool:
    return len(items) < _FEW["image" if reading.kind == "image" else "scan"]


def _read_chunk(
    items: Sequence[Item], reading: Reading, room: np.memmap | None, start: int
) -> list[Any]:
    """What items become: `Rows`, or of images in the room its fields behind `positions`."""
    if room is not None:
        _keep_freed_memory()
        room = room if take_place(room, start, len(items)) else None
    found: list[Any] = []
    for place, item in enumerate(items, start):
        rows = _read_or_skip(item, reading)
        fits = room is not None and len(rows.images) == 1 and rows.images.dtype == room.dtype
        if room is not None and fits:
            room[place] = rows.images[0]
            found.append((rows.masks, rows.size, rows.lowest, rows.highest))
        else:
            found.append(rows)
    return found


@functools.cache
def _keep_freed_memory() -> None:
    """Lets the C library keep what images leave for the next ones; once in each process.

    glibc gives memory back at once until a larger piece than that was freed, and getting it anew
    costs more than decoding a photograph. Others do not mind.
    """
    np.empty(2**25 - 2**16, np.uint8)


def _read_or_skip(item: Item, reading: Reading) -> Rows:
    try:
        return read_item(item, reading)
    except DataError as error:
        if reading.on_error == "raise":
            raise
        return left_out(item, reading, str(error))


class FilesSummary:
    """Collects, item by item, what is told of a split's files."""

    def __init__(self) -> None:
        self._sizes: collections.Counter[str] = collections.Counter()
        self._values: list[float] = []
        self._skipped: list[str] = []
        self._left_out = 0
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Counts an item."""
        self._count += 1
        self._left_out += rows.num_left_out
        if rows.error:
            self._skipped.append(rows.error)
            return
        self._sizes[rows.size] += 1
        if rows.lowest is not None and rows.highest is not None:
            values = (*self._values, rows.lowest, rows.highest)
            self._values = [min(values), max(values)]

    def finish(self) -> FilesRead:
        """The summary."""
        return FilesRead(
            count=self._count,
            skipped=tuple(self._skipped),
            slices_left_out=self._left_out,
            sizes=dict(self._sizes.most_common()),
            lowest=self._values[0] if self._values else None,
            highest=self._values[1] if self._values else None,
        )


def read_split(items: Sequence[Item], reading: Reading, name: str) -> Split:
    """The split that items make.

    Args:
        items: in the order of the split.
        reading: how.
        name: of the split, for messages.

    Raises:
        DataError: a file cannot be used.
        UserError: none of the files can be.
    """
    side, channels = reading.preparation.image_size, reading.preparation.channels
    share = reading.kind == "image" and not _is_few(items, reading) and can_start_processes()
    with contextlib.ExitStack() as stack:
        room = None
        if share:
            shape = (len(items), side, side, channels)
            room = stack.enter_context(shared_array(shape, np.dtype(np.uint8)))
        return _join(read_items(items, reading, name, room), len(items), name, room)


def _join(found: Iterable[Rows], count: int, name: str, room: np.memmap | None) -> Split:
    """The split of what items became; its images are the room, where all of them are there."""
    summary = FilesSummary()
    parts = []
    for rows in found:
        summary.add(rows)
        if len(rows.images):
            parts.append(rows)
    files = summary.finish()
    if not parts:
        why = f"; the first: {files.skipped[0]}" if files.skipped else ""
        raise UserError(f"{name}: none of {count} files gives an image{why}")
    # One type for all: where some are of 16 bits, all are.
    dtype = max((rows.images.dtype for rows in parts), key=lambda dtype: dtype.itemsize)
    is_there = room is not None and all(np.may_share_memory(r.images, room) for r in parts)
    if room is not None and is_there and len(parts) == count:
        images = np.asarray(room)
    else:
        images = np.concatenate([to_depth(rows.images, dtype) for rows in parts])
    return Split(
        images=images,
        labels=np.concatenate([rows.labels for rows in parts]),
        ids=tuple(one for rows in parts for one in rows.ids),
        groups=tuple(rows.item.group for rows in parts for _ in rows.images),
        masks=_join_masks(parts),
        positions=(
            None
            if any(rows.positions is None for rows in parts)
            else np.concatenate([rows.positions for rows in parts])
        ),
        files=files,
        unnamed=frozenset(rows.item.group for rows in parts if rows.item.is_unnamed),
    )


def _join_masks(parts: Sequence[Rows]) -> UInt8[np.ndarray, "n s s"] | None:
    """The masks of all images: empty ones of normal images, None where nothing is marked."""
    if all(rows.masks is None for rows in parts):
        return None
    for rows in parts:
        if rows.masks is None and rows.labels.any():
            raise UserError(
                f"'{rows.item.id}' is anomalous and has no mask, while others have one; add it, or "
                "remove all masks."
            )
    return np.concatenate(
        [
            np.zeros(rows.images.shape[:3], np.uint8) if rows.masks is None else rows.masks
            for rows in parts
        ]
    )


def tell_skipped(name: str, files: FilesRead) -> str:
    """A line on the files that were left out; "" where there are none."""
    if not files.skipped:
        return ""
    first = " | ".join(files.skipped[:_TOLD])
    more = f" | and {len(files.skipped) - _TOLD} more" if len(files.skipped) > _TOLD else ""
    return f"{name}: skipped {len(files.skipped)} of {files.count} files: {first}{more}"
