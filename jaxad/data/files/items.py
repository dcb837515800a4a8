"""What a data set's files are, and what one of them becomes.

A layout says which files there are (`Item`s by split); `jaxad.data.files.reading` reads them. A
builder that keeps what was read, a folder that is read anew and a new site's images all pass here.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from jaxad.data.files.formats import FORMATS, Kind, is_other_format
from jaxad.data.files.masks import check_labels, marked
from jaxad.data.prepare.cutting import Cutting, cut
from jaxad.data.prepare.framing import Frame
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.prepare_images import extrema_of, prepare_image, prepare_plain
from jaxad.data.prepare.preprocess import are_constant
from jaxad.data.readers import dicom
from jaxad.data.readers.images import read_image, read_plain
from jaxad.data.readers.masks import check_orientation, read_mask
from jaxad.data.readers.volumes import Grid, Volume, read_nifti
from jaxad.errors import DataError, UserError
from jaxad.storage.paths import readable


@dataclasses.dataclass(frozen=True)
class Item:
    """An image, or a scan with all its slices.

    Names of files need not be UTF-8. Bytes of an id or a group that are not become text such as
    `\\xff`, so that every table, page and log can hold them.

    Attributes:
        id: its name in the data set; a slice's is `<id>-<position>`.
        group: the patient.
        paths: its file, or its folder of a DICOM series; one for each modality.
        label: 1 = anomalous; None: its mask tells, slice by slice.
        mask: the file of its mask, if it has one.
        normal_only: whether its anomalous slices are left out, as in data to learn from.
        is_unnamed: whether no patient is known, so that `group` is the path of the file.
    """

    id: str
    group: str
    paths: tuple[Path, ...]
    label: int | None
    mask: Path | None = None
    normal_only: bool = False
    is_unnamed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", readable(self.id))
        object.__setattr__(self, "group", readable(self.group))


@dataclasses.dataclass(frozen=True)
class Reading:
    """How items are read.

    Attributes:
        kind: of the files.
        preparation: of pixels.
        cutting: of volumes.
        on_error: `raise`, or `skip` bad files and count them.
        measure: whether the range of values in images is told, which takes time; that of scans is
            always told.
    """

    kind: Kind
    preparation: Preparation
    cutting: Cutting
    on_error: str = "raise"
    measure: bool = False


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
        lowest: value in its file; None where it was not measured.
        highest: likewise.
        num_left_out: of its slices.
        error: why it was left out; "" otherwise.
        grid: of a scan.
    """

    item: Item
    images: Shaped[np.ndarray, "n s s c"]
    labels: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, " n"] | None
    masks: UInt8[np.ndarray, "n s s"] | None
    size: str
    lowest: float | None
    highest: float | None
    num_left_out: int = 0
    error: str = ""
    grid: Grid | None = None

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
    try:
        return (_read_image_item if reading.kind == "image" else _read_volume_item)(item, reading)
    except DataError as error:
        for path in item.paths:
            if is_other_format(path, reading.kind) and not path.is_dir():
                raise DataError(
                    f"{path}: is of a format that is not read; convert it to "
                    f"{FORMATS[reading.kind].target}, or leave it out."
                ) from error
        raise


def _read_image_item(item: Item, reading: Reading) -> Rows:
    path, settings = item.paths[0], reading.preparation.of_images()
    is_plain = settings.intensity == "range" and settings.channels in (1, 3)
    plain = read_plain(path) if is_plain else None
    if plain is not None:
        image = prepare_plain(plain, settings, str(path))
        height, width = plain.height, plain.width
        extrema = np.array(extrema_of(plain)) if reading.measure else None
    else:
        pixels = read_image(path)
        image = prepare_image(pixels, settings, str(path))
        height, width = pixels.shape[:2]
        extrema = np.array([pixels.min(), pixels.max()]) if reading.measure else None
    label, mask = item.label or 0, None
    if item.mask is not None:
        check_orientation(path, item.mask, (height, width))
        is_marked = read_mask(item.mask, (height, width))
        _check_label(item, bool(is_marked.any()))
        mask = Frame.of((float(height), float(width)), settings).resize_mask(is_marked)[None]
        if label and not mask.any():
            raise DataError(
                f"{item.mask}: what it marks lies outside of what config.data.preprocess.square="
                f"{settings.square} leaves of the image; choose another, or leave the image out."
            )
    if are_constant(image[None])[0]:
        raise DataError(
            f"{path}: is constant once it is prepared: config.data.preprocess.square="
            f"{settings.square} and resizing leave one value; choose another, or leave it out."
        )
    return Rows(
        item=item,
        images=image[None],
        labels=np.array([label], np.int32),
        positions=None,
        masks=mask,
        size=f"{height}x{width}",
        lowest=None if extrema is None else float(extrema.min()),
        highest=None if extrema is None else float(extrema.max()),
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
        voxels = marked(mask.voxels, str(item.mask))
        mask = dataclasses.replace(mask, voxels=voxels.astype(np.uint8))
        _check_label(item, bool(voxels.any()))
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
        grid=volumes[0].grid,
    )


def _read_volume(path: Path) -> Volume:
    return dicom.read_series(path) if path.is_dir() else read_nifti(path)


def _check_label(item: Item, is_marked: bool) -> None:
    if item.label is not None:
        check_labels(str(item.mask), [item.id], np.array([item.label]), np.array([is_marked]))


def files_of(parts: Iterable[Iterable[Item]]) -> set[Path]:
    """The files, or folders of series, that items are read from, their masks among them."""
    items = [item for part in parts for item in part]
    masks = {item.mask for item in items if item.mask is not None}
    return masks | {path for item in items for path in item.paths}


def left_out(item: Item, reading: Reading, error: str) -> Rows:
    """What a bad item becomes: no image, and why."""
    side, channels = reading.preparation.image_size, reading.preparation.channels
    return Rows(
        item=item,
        images=np.zeros((0, side, side, channels), np.uint8),
        labels=np.zeros(0, np.int32),
        positions=None,
        masks=None,
        size="",
        lowest=None,
        highest=None,
        error=readable(error),
    )
