"""What a data set's files are, and reading them: in parallel, each once, the bad ones counted.

A layout says which files there are (`Item`s by split); `read_split` makes a `Split` of them. A
builder that keeps what was read, a folder that is read anew and a new site's images all pass here.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import joblib
import numpy as np
from jaxtyping import Int, Shaped, UInt8
from tqdm.auto import tqdm

from jaxad.data.cutting import Cutting, cut
from jaxad.data.preparation import Frame, Preparation, prepare_image, to_depth
from jaxad.data.readers import dicom
from jaxad.data.readers.images import read_image, read_mask
from jaxad.data.readers.volumes import Volume, read_nifti
from jaxad.errors import DataError, UserError
from jaxad.types import FilesRead, Split

Kind = Literal["image", "nifti", "dicom"]

#: Fewer are read by threads of this process.
_FEW = {"image": 200, "scan": 12}

#: Names of bad files that are told one by one.
_TOLD = 5


@dataclasses.dataclass(frozen=True)
class Item:
    """An image, or a scan with all its slices.

    Attributes:
        id: its name in the data set; a slice's is `<id>-<position>`.
        group: the patient.
        paths: its file, or its folder of a DICOM series; one for each modality.
        label: 1 = anomalous; None: its mask tells, slice by slice.
        mask: the file of its mask, if it has one.
        normal_only: whether its anomalous slices are left out, as in data to learn from.
    """

    id: str
    group: str
    paths: tuple[Path, ...]
    label: int | None
    mask: Path | None = None
    normal_only: bool = False


@dataclasses.dataclass(frozen=True)
class Reading:
    """How items are read.

    Attributes:
        kind: of the files.
        preparation: of pixels.
        cutting: of volumes.
        on_error: `raise`, or `skip` bad files and count them.
    """

    kind: Kind
    preparation: Preparation
    cutting: Cutting
    on_error: str = "raise"

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise UserError(
                f"config.data.on_error: '{self.on_error}' is neither 'raise' nor 'skip'."
            )


@dataclasses.dataclass(frozen=True)
class Rows:
    """What one item became.

    Attributes:
        images: [N, S, S, C], uint8 or uint16; N is 1 for an image, 0 where it was left out.
        labels: 1 = anomalous.
        positions: slice numbers; None for images.
        masks: 1 = anomalous; None where there is none.
        item: of which.
        size: of its file, such as `512x512`.
        lowest: value in its file.
        highest: value in its file.
        num_left_out: of its slices.
        error: why it was left out; "" otherwise.
    """

    item: Item
    images: Shaped[np.ndarray, "n s s c"]
    labels: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, " n"] | None
    masks: UInt8[np.ndarray, "n s s"] | None
    size: str
    lowest: float
    highest: float
    num_left_out: int = 0
    error: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the images."""
        if self.positions is None:
            return (self.item.id,) * len(self.images)
        return tuple(f"{self.item.id}-{position:03d}" for position in self.positions)


def read_item(item: Item, reading: Reading) -> Rows:
    """The images of an item, prepared.

    Raises:
        DataError: a file of it cannot be used.
    """
    return (_read_image_item if reading.kind == "image" else _read_volume_item)(item, reading)


def _read_image_item(item: Item, reading: Reading) -> Rows:
    path, settings = item.paths[0], reading.preparation
    pixels = read_image(path)
    image = prepare_image(pixels, settings, str(path))
    mask = None
    if item.mask is not None:
        height, width = pixels.shape[:2]
        marked = read_mask(item.mask, (height, width))
        mask = Frame.of((float(height), float(width)), settings).resize_mask(marked)[None]
        _check_label(item, bool(marked.any()))
    return Rows(
        item=item,
        images=image[None],
        labels=np.array([item.label or 0], np.int32),
        positions=None,
        masks=mask,
        size="x".join(map(str, pixels.shape[:2])),
        lowest=float(pixels.min()),
        highest=float(pixels.max()),
    )


def _read_volume_item(item: Item, reading: Reading) -> Rows:
    volumes = [_read_volume(path) for path in item.paths]
    mask = None if item.mask is None else _read_volume(item.mask)
    channels = reading.preparation.channels
    if len(volumes) == 1 and channels == 3:
        volumes = volumes * 3
    if len(volumes) != channels:
        raise UserError(
            f"config.data.channels is {channels}, a scan has {len(volumes)} modalities here; make "
            "it that, or name others in config.data.modality."
        )
    if mask is not None:
        _check_label(item, bool((mask.voxels != 0).any()))
    slices = cut(volumes, mask, reading.preparation, reading.cutting)
    labels = slices.labels
    if labels is None:
        labels = np.full(len(slices.images), item.label or 0, np.int32)
    kept = labels == 0 if item.normal_only else np.ones(len(labels), bool)
    voxels = volumes[0].voxels
    return Rows(
        item=item,
        images=slices.images[kept],
        labels=labels[kept],
        positions=slices.positions[kept],
        masks=None if slices.masks is None else slices.masks[kept],
        size="x".join(map(str, voxels.shape)),
        lowest=float(min(volume.voxels.min() for volume in volumes)),
        highest=float(max(volume.voxels.max() for volume in volumes)),
        num_left_out=slices.num_left_out,
    )


def _read_volume(path: Path) -> Volume:
    return dicom.read_series(path) if path.is_dir() else read_nifti(path)


def _check_label(item: Item, is_marked: bool) -> None:
    if item.label == 0 and is_marked:
        raise DataError(
            f"{item.mask}: marks anomalous pixels of '{item.id}', which is labelled normal; mend "
            "one of them."
        )
    if item.label == 1 and not is_marked:
        raise DataError(
            f"{item.mask}: is empty, but '{item.id}' is labelled anomalous; mend one of them."
        )


def read_items(items: Sequence[Item], reading: Reading, progress: str) -> Iterator[Rows]:
    """What each item becomes, in their order, read in parallel under a progress bar.

    With `on_error="skip"` a bad one has no images and its `error`.

    Raises:
        DataError: a file cannot be used, and `on_error` is `raise`.
    """
    is_few = len(items) < _FEW["image" if reading.kind == "image" else "scan"]
    # Processes: threads wait for each other where every image takes fresh memory. Starting
    # processes takes longer than reading a few files.
    backend = {"backend": "threading"} if is_few else {"inner_max_num_threads": 1}
    with joblib.parallel_config(**{"backend": "loky", **backend}, n_jobs=joblib.cpu_count()):
        parallel = joblib.Parallel(return_as="generator")
        rows = parallel(joblib.delayed(_read_or_skip)(item, reading) for item in items)
    unit = "image" if reading.kind == "image" else "scan"
    return iter(tqdm(rows, total=len(items), desc=progress, unit=unit, disable=len(items) < 20))


def _read_or_skip(item: Item, reading: Reading) -> Rows:
    try:
        return read_item(item, reading)
    except DataError as error:
        if reading.on_error == "raise":
            raise
        return _left_out(item, reading, str(error))


def _left_out(item: Item, reading: Reading, error: str) -> Rows:
    side, channels = reading.preparation.image_size, reading.preparation.channels
    return Rows(
        item=item,
        images=np.zeros((0, side, side, channels), np.uint8),
        labels=np.zeros(0, np.int32),
        positions=None,
        masks=None,
        size="",
        lowest=0.0,
        highest=0.0,
        error=error,
    )


class FilesSummary:
    """Collects, item by item, what is told of a split's files."""

    def __init__(self) -> None:
        self._sizes: collections.Counter[str] = collections.Counter()
        self._range = [float("inf"), float("-inf")]
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
        self._range = [min(self._range[0], rows.lowest), max(self._range[1], rows.highest)]

    def finish(self) -> FilesRead:
        """The summary."""
        return FilesRead(
            count=self._count,
            skipped=tuple(self._skipped),
            slices_left_out=self._left_out,
            sizes=dict(self._sizes.most_common()),
            lowest=self._range[0],
            highest=self._range[1],
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
    summary = FilesSummary()
    parts = []
    for rows in read_items(items, reading, name):
        summary.add(rows)
        if len(rows.images):
            parts.append(rows)
    files = summary.finish()
    if not parts:
        why = f"; the first: {files.skipped[0]}" if files.skipped else ""
        raise UserError(f"{name}: none of {len(items)} files gives an image{why}")
    # One type for all: where some are of 16 bits, all are.
    dtype = max((rows.images.dtype for rows in parts), key=lambda dtype: dtype.itemsize)
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
