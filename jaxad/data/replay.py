"""Images that are no data set's: read and prepared as those that a run learnt from.

All that this depends on is in the run's `config.data`, so that what is scored later, on another
machine, is treated to the bit as what was trained on.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.files.folders import candidates, read_any_folder, read_normal_folder
from jaxad.data.files.formats import KINDS
from jaxad.data.files.items import Item, Reading, Rows
from jaxad.data.files.mask_pairs import mask_beside, separate_masks
from jaxad.data.files.mask_search import refuse_masks
from jaxad.data.files.names import is_archive, is_table
from jaxad.data.files.normals import check_apart, check_one_class, refuse_named_masks
from jaxad.data.files.npz import read_npz
from jaxad.data.files.reading import read_items, read_split
from jaxad.data.files.tables import read_rows
from jaxad.data.files.tree import check_not_hidden
from jaxad.data.files.unread import find_unread, tell_unread
from jaxad.data.prepare.cutting import cut
from jaxad.data.prepare.preparation import to_depth
from jaxad.data.prepare.prepare_images import prepare_image
from jaxad.data.prepare.preprocess import native
from jaxad.data.readers.volumes import to_right_anterior_superior
from jaxad.data.sources import TFDS, check_split, is_published, published, told
from jaxad.errors import UserError
from jaxad.types import Split


def is_prepared(data: ConfigDict) -> bool:
    """Whether a run's images were prepared before jaxad saw them: `icbm_synth` and `npz`."""
    return data.name not in KINDS and not data.name.startswith(TFDS)


def reading_of(data: ConfigDict) -> Reading:
    """How the files of the run's data set were read."""
    reading = settings.reading(data, KINDS[data.name])
    return published(data.name).reading_of(reading) if is_published(data.name) else reading


def prepare_pixels(
    pixels: Shaped[np.ndarray, "..."], data: ConfigDict, affine: Shaped[np.ndarray, "..."] | None
) -> Shaped[np.ndarray, "n s s c"]:
    """Images of raw pixels, as the run's own were made of those of files.

    Args:
        pixels: for a run on images one image [H, W] (grey) or [H, W, 3], or images [N, H, W]
            (grey) or [N, H, W, C] of any size; for a run on scans one scan [X, Y, Z].
        data: the run's; see `is_prepared`.
        affine: of a scan, from indices to mm, RAS+; without: right, anterior, superior at 1 mm.
            A run on several modalities takes [X, Y, Z, C].

    Raises:
        UserError: they cannot be prepared.
    """
    pixels = native(pixels, "pixels")
    if KINDS.get(data.name, "image") == "image":
        one_in_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
        stack = pixels[None] if pixels.ndim == 2 or one_in_colour else pixels
        stack = stack[..., None] if stack.ndim == 3 else stack
        if stack.ndim != 4 or not len(stack):
            raise UserError(
                f"images: have shape {pixels.shape}; give [H, W], [N, H, W] or [N, H, W, C]."
            )
        settings_ = settings.preparation(data)
        return np.stack(
            [prepare_image(one, settings_, f"image {place}") for place, one in enumerate(stack)]
        )
    return _cut_pixels(pixels, data, np.eye(4) if affine is None else np.asarray(affine))


def _cut_pixels(
    pixels: Shaped[np.ndarray, "..."], data: ConfigDict, affine: Shaped[np.ndarray, "..."]
) -> Shaped[np.ndarray, "n s s c"]:
    """The slices of a scan [X, Y, Z], or of one of several modalities [X, Y, Z, C]."""
    reading, several = reading_of(data), "," in data.modality
    channels = reading.preparation.channels
    expected = (4, channels) if several else (3, pixels.shape[-1] if pixels.ndim else 0)
    if (pixels.ndim, pixels.shape[-1] if pixels.ndim else 0) != expected:
        wanted = f"[X, Y, Z, {channels}], {data.modality}" if several else "one scan [X, Y, Z]"
        raise UserError(f"scan: has shape {pixels.shape}; give {wanted}.")
    if affine.shape != (4, 4) or pixels.dtype.kind not in "buif":
        raise UserError(
            f"scan: is {pixels.dtype} with an affine of shape {affine.shape}; give real numbers "
            "and an affine of 4 x 4."
        )
    modalities = [pixels[..., one] for one in range(channels)] if several else [pixels]
    volumes = []
    for one in modalities:
        held = _as_in_a_file(one)
        image = nib.Nifti1Image(held, affine.astype(np.float64))
        volumes.append(to_right_anterior_superior(image, Path("scan"), held.nbytes))
    volumes = volumes * channels if len(volumes) == 1 else volumes
    return cut(volumes, None, reading.preparation, reading.cutting).images


def _as_in_a_file(voxels: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "x y z"]:
    """Types that scans are hardly saved as, NumPy's default among them, as those that hold them."""
    if voxels.dtype == np.float16:
        return voxels.astype(np.float32)
    if voxels.dtype.kind not in "bui" or (voxels.dtype != bool and voxels.itemsize < 8):
        return voxels
    lowest, highest = voxels.min(initial=0), voxels.max(initial=0)
    for dtype in (np.int16, np.int32):
        limits = np.iinfo(dtype)
        if limits.min <= lowest and highest <= limits.max:
            return voxels.astype(dtype)
    return voxels.astype(np.float64)


def read_files(path: Path, data: ConfigDict, *, with_labels: bool = False) -> Split:
    """Files as a run's data set was read: what is to be scored, or another site's.

    Args:
        path: a folder of images, scans or DICOM series, one of them, or a table of them.
        data: the run's.
        with_labels: whether the labels and masks of a table are used; without them all slices of a
            scan are kept.

    Raises:
        UserError: the run's data set is not of files, or these cannot be used.
    """
    items = find_items(path, data, normal=with_labels)
    if not with_labels:
        items = [dataclasses.replace(item, label=0, mask=None) for item in items]
    reading = reading_of(data)
    split = told(read_split(items, reading, str(path)), str(path))
    depth = _depth(data, reading)
    return (
        split if depth is None else dataclasses.replace(split, images=to_depth(split.images, depth))
    )


def find_items(path: Path, data: ConfigDict, *, normal: bool = False) -> list[Item]:
    """The files at a path that a run can score, in a fixed order; they are not read yet.

    Args:
        path: see `read_files`.
        data: the run's.
        normal: whether all are to be normal, so that what hints at others is refused.

    Raises:
        UserError: see `read_files`.
    """
    if data.name not in KINDS:
        raise UserError(
            f"{path}: a run on '{data.name}' takes images that are prepared, as an .npz file; "
            f"files are taken by runs on {', '.join(KINDS)}."
        )
    if "," in data.modality:
        raise UserError(
            f"{path}: a run on the modalities {data.modality} reads no other files; join them to "
            "[X, Y, Z, modality] and use detector.preprocess."
        )
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; name one that is there.")
    return _items_at(path, data, normal)


def read_rows_of(items: Sequence[Item], data: ConfigDict) -> Iterator[Rows]:
    """What each of the files to score becomes, in their order; bad ones have an `error`."""
    reading = dataclasses.replace(reading_of(data), on_error="skip")
    depth = _depth(data, reading)
    unlabelled = [dataclasses.replace(item, label=0, mask=None) for item in items]
    for rows in read_items(unlabelled, reading, ""):
        images = rows.images if depth is None else to_depth(rows.images, depth)
        yield dataclasses.replace(rows, images=images)


def _depth(data: ConfigDict, reading: Reading) -> Any:
    """The type of all images of a published data set; None: each has its file's."""
    published_one = published(data.name) if is_published(data.name) else None
    return None if published_one is None else published_one.depth(reading.preparation)


def _items_at(path: Path, data: ConfigDict, normal: bool) -> list[Item]:
    kind, splitting = KINDS[data.name], settings.splitting(data)
    check_not_hidden(path)
    if is_table(path):
        return [item for _, item in read_rows(path, kind, splitting)]
    needs_no_mask = normal and kind == "nifti" and is_published(data.name)
    if not path.is_file():
        files = candidates(path, kind)
        if normal:
            check_one_class(path, files, splitting)
        if needs_no_mask:
            refuse_named_masks(separate_masks(files)[1], data.name)
        items = (read_normal_folder if normal else read_any_folder)(path, kind, splitting)
        # Masks that are left out are reported, or refused, where items are listed.
        unread = find_unread(path, kind, files)
        tell_unread(unread, is_strict=normal and data.on_error == "raise")
    elif kind == "dicom":
        raise UserError(f"{path}: is one file; name the folder of its series.")
    else:
        refuse_masks([path], kind, path.parent, "name what it marks")
        mask = mask_beside(path, kind) if normal else None
        if needs_no_mask and mask is not None:
            refuse_named_masks([mask], data.name)
        # Nothing says that the file of one scan is named as those of the run were.
        items = [Item(path.name, path.name, (path,), label=0, mask=mask, is_unnamed=True)]
    return published(data.name).of_site(items, data.modality) if is_published(data.name) else items


def read_normals(path: Path, data: ConfigDict) -> Split:
    """Normal images of another site.

    Args:
        path: an `.npz` file (see `npz_readers`), without labels or all 0, that says which patient
            each image is of: slices of one taken for patients of their own would make any
            guarantee untrue. For runs on files also what `read_files` takes.
        data: the run's.

    Raises:
        UserError: it cannot be read, an `.npz` file has no `group`, an image is unusable, one is
            labelled anomalous or marked by a mask, or they are the run's own data.
    """
    check_not_hidden(path)
    check_apart(path, data)
    is_npz = is_archive(path) or data.name not in KINDS
    split = (
        read_npz(path, needed=("group",)) if is_npz else read_files(path, data, with_labels=True)
    )
    shape = (int(data.image_size), int(data.image_size), int(data.channels))
    check_split(split, f"'{path}'", shape, normal=True)
    return split
