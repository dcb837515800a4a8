"""Items of a data set: an image or a scan, how it is read, and the rows of a split that it becomes.

A layout lists `Item`s by split, and `jaxad.data.files.reading` reads many of them. Builders that
cache what they read, folders that are read anew and images of new sites all use these.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from jaxad.data.files.formats import FORMATS, Kind, is_other_format, noun_of_other_kind
from jaxad.data.files.masks import check_labels
from jaxad.data.prepare.cutting import Cutting, Slices, cut
from jaxad.data.prepare.framing import Frame
from jaxad.data.prepare.preparation import (
    BlankImageError,
    Preparation,
    has_noisy_background,
    to_depth,
)
from jaxad.data.prepare.prepare_images import extrema_of, prepare_image, prepare_plain
from jaxad.data.prepare.preprocess import are_constant
from jaxad.data.prepare.standard_space import StandardSpace
from jaxad.data.readers import dicom
from jaxad.data.readers.images import read_image, read_plain
from jaxad.data.readers.masks import check_orientation, marked_pixels, read_mask
from jaxad.data.readers.volumes import Grid, Volume, check_same_grid
from jaxad.errors import DataError, UserError
from jaxad.storage.paths import readable


@dataclasses.dataclass(frozen=True)
class Item:
    """An image, or a scan with all its slices.

    Bytes of file names that are not UTF-8 become text such as `\\xff` in an id or a group, so that
    every table, page and log can hold them.
    """

    id: str  # name in the data set; a slice is named `<id>-<position>`
    group: str  # the patient
    paths: tuple[Path, ...]  # the file, or the folder of a DICOM series; one per modality
    label: int | None  # 1 = anomalous; None: the mask labels each slice
    mask: Path | None = None  # the file of the mask, if there is one
    normal_only: bool = False  # whether anomalous slices are left out, as in training data
    #: whether the patient is unknown, so that `group` is the path of the file
    is_unnamed: bool = False
    position: int | None = None  # slice index of an image; scans number their own slices
    #: whether its split, `val` or `test`, was drawn, as opposed to files that the user assigned
    is_drawn: bool = dataclasses.field(default=False, compare=False)
    #: texts of a table's other columns by name; the same columns for all items of a data set
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", readable(self.id))
        object.__setattr__(self, "group", readable(self.group))


@dataclasses.dataclass(frozen=True)
class Reading:
    """How items are read."""

    kind: Kind  # the kind of the files
    preparation: Preparation  # how pixels become an image
    cutting: Cutting  # how volumes are cut
    on_error: str = "raise"  # `raise` an error for a bad file, or `skip` bad files and count them
    #: whether to measure the range of values of images, which takes time; for scans it is always
    #: measured
    measure: bool = False
    #: the space that scans are resampled into before they are cut; None: they are cut as they are
    space: StandardSpace | None = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a split that one item becomes."""

    item: Item
    #: [N, S, S, C], uint8 or uint16; N is 1 for an image, 0 for one that is skipped or blank
    images: Shaped[np.ndarray, "n s s c"]
    labels: Int[np.ndarray, " n"]  # 1 = anomalous
    positions: Int[np.ndarray, " n"] | None = None  # slice indices; None if there are none
    masks: UInt8[np.ndarray, "n s s"] | None = None  # 1 = anomalous; None if there is no mask
    size: str = ""  # the size of the file, such as `512x512`
    lowest: float | None = None  # smallest value in the file; None if it was not measured
    highest: float | None = None  # largest value in the file; None if it was not measured
    num_left_out: int = 0  # number of slices that were left out
    error: str = ""  # why the item was skipped; "" if it was not
    is_noisy: bool = False  # see `has_noisy_background`
    blank: str = ""  # which value all pixels of the image have; "" if they differ
    grid: Grid | None = None  # the grid of a scan, shifted as `Scan.grid` is
    note: str = ""  # what was done to the scan that the user should know; "" for nothing

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images."""
        if self.positions is None or self.item.position is not None:
            return (self.item.id,) * len(self.images)
        return tuple(f"{self.item.id}-{position:03d}" for position in self.positions)


def read_item(item: Item, reading: Reading) -> Rows:
    """Reads and prepares the images of an item.

    A blank image gives no images and a text in `blank`; if a mask marks an anomaly in it, it is a
    bad item. With `reading.on_error="skip"`, a bad item gives no images and an `error`.

    Raises:
        DataError: a file cannot be used, and `on_error` is `raise`.
    """
    side, channels = reading.preparation.image_size, reading.preparation.channels
    images, labels = np.zeros((0, side, side, channels), np.uint8), np.zeros(0, np.int32)
    try:
        return (_read_image_item if reading.kind == "image" else _read_volume_item)(item, reading)
    except DataError as error:
        message = str(error)
        is_blank = isinstance(error, BlankImageError) and reading.kind == "image"
        if is_blank and not (item.mask and item.label):
            return Rows(item, images, labels, blank=readable(message))
        others = [p for p in item.paths if is_other_format(p, reading.kind) and not p.is_dir()]
        if others:
            message = (
                f"{others[0]}: is in a format that is not read; convert it to "
                f"{FORMATS[reading.kind].target}, or leave it out."
            )
        for path in item.paths:
            if noun := noun_of_other_kind(path, reading.kind):
                message = (
                    f"{path}: is {noun}, but the data set holds {FORMATS[reading.kind].name}; "
                    "leave it out, or read it with another config.data.name."
                )
                break
        if reading.on_error == "raise":
            remedy = "Or leave out every bad file with --config.data.on_error=skip."
            raise DataError(f"{message.rstrip('.')}. {remedy}") from error
    return Rows(item, images, labels, error=readable(message))


def _read_image_item(item: Item, reading: Reading) -> Rows:
    path, settings, is_noisy = item.paths[0], reading.preparation.of_images(), False
    is_plain = settings.intensity == "range" and settings.channels in (1, 3)
    plain = read_plain(path) if is_plain else None
    if plain is not None:
        image = prepare_plain(plain, settings, str(path))
        shape = (plain.height, plain.width)
        extrema = np.array(extrema_of(plain)) if reading.measure else None
    else:
        pixels = read_image(path)
        image = prepare_image(pixels, settings, str(path))
        is_noisy = has_noisy_background(pixels, 2, settings, str(path))
        shape = pixels.shape[:2]
        extrema = np.array([pixels.min(), pixels.max()]) if reading.measure else None
    label, mask = item.label or 0, None
    if item.mask is not None:
        check_orientation(path, item.mask, shape)
        is_marked = read_mask(item.mask, shape)
        _check_label(item, bool(is_marked.any()))
        mask = Frame.of(shape, settings).resize_mask(is_marked)[None]
        if label and not mask.any():
            raise DataError(
                f"{item.mask}: marks only pixels that config.data.preprocess.square="
                f"{settings.square} cuts off; choose another value, or leave the image out."
            )
    if are_constant(image[None])[0]:
        if settings.square == "crop":
            raise DataError(
                f"{path}: has only one value after config.data.preprocess.square=crop and "
                "resizing; choose another value, or leave the image out."
            )
        raise BlankImageError(f"{path}: has only one value after resizing; leave it out.")
    return Rows(
        item=item,
        images=image[None],
        labels=np.array([label], np.int32),
        positions=None if item.position is None else np.array([item.position], np.int32),
        masks=mask,
        size=f"{shape[0]}x{shape[1]}",
        lowest=None if extrema is None else float(extrema.min()),
        highest=None if extrema is None else float(extrema.max()),
        is_noisy=is_noisy,
    )


def _read_volume_item(item: Item, reading: Reading) -> Rows:
    volumes = [read_volume(path) for path in item.paths]
    mask = None if item.mask is None else read_volume(item.mask)
    channels = reading.preparation.channels
    if len(volumes) == 1 and channels == 3:
        volumes = volumes * 3
    if len(volumes) != channels:
        raise UserError(
            f"config.data.channels is {channels}, but a scan has {len(volumes)} modalities; set it "
            f"to {len(volumes)}, or name other modalities in config.data.modality."
        )
    if mask is not None:
        voxels = marked_pixels(mask.voxels, str(item.mask))
        mask = dataclasses.replace(mask, voxels=voxels.astype(np.uint8))
        _check_label(item, bool(voxels.any()))
    scan = cut_scan(volumes, mask, reading)
    slices, labels = scan.slices, scan.slices.labels
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
        is_noisy=any(
            has_noisy_background(
                volume.voxels, 3, reading.preparation.of_volumes(), str(volume.path)
            )
            for volume in volumes
        ),
        grid=scan.grid,
        note=scan.note,
    )


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scan that was cut."""

    slices: Slices
    grid: Grid  # the grid of the scan, shifted if its space is `Reading.space`
    note: str = ""  # what was done to the scan that the user should know; "" for nothing


def cut_scan(volumes: Sequence[Volume], mask: Volume | None, reading: Reading) -> Scan:
    """Cuts a scan, after resampling it into `reading.space` if there is one.

    The volumes are the modalities of the scan, one per channel.

    Raises:
        DataError: see `cut` and `StandardSpace.align`.
    """
    first, space = volumes[0], reading.space
    if space is None:
        return Scan(cut(list(volumes), mask, reading.preparation, reading.cutting), first.grid)
    aligned, note = space.align(first)
    channels = [space.resample(aligned)] * len(volumes)
    if mask is not None:
        check_same_grid(first, mask, "mask")
        mask = space.resample_mask(dataclasses.replace(mask, affine=aligned.affine))
    slices = cut(channels, mask, reading.preparation, reading.cutting)
    # Embedded data sets hold 8 bits.
    images = to_depth(slices.images, np.uint8)
    return Scan(dataclasses.replace(slices, images=images), aligned.grid, note)


def read_volume(path: Path) -> Volume:
    """Reads a NIfTI file or, if the path is a folder, a DICOM series."""
    if path.is_dir():
        return dicom.read_series(path)
    from jaxad.data.readers.nifti import read_nifti  # nibabel: data sets of images need none

    return read_nifti(path)


def _check_label(item: Item, is_marked: bool) -> None:
    if item.label is not None:
        check_labels(str(item.mask), [item.id], np.array([item.label]), np.array([is_marked]))


def files_of(parts: Iterable[Iterable[Item]]) -> set[Path]:
    """Returns the files and folders of series that items are read from, and their masks."""
    items = [item for part in parts for item in part]
    masks = {item.mask for item in items if item.mask is not None}
    return masks | {path for item in items for path in item.paths}
