"""Images outside the data set of a run, read and prepared as the run's own images were.

All of this depends on the run's `config.data` alone, so that images that are scored later, on
another machine, are bit-identical to what training would have seen.
"""

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from jaxad.config.fields import find
from jaxad.config.shape import data_shape
from jaxad.data import settings
from jaxad.data.data_sets import data_set_info
from jaxad.data.files.folders import candidates, read_any_folder, read_normal_folder
from jaxad.data.files.formats import FORMATS, Kind, is_other_format, noun_of_other_kind
from jaxad.data.files.items import Item, Reading, Rows, cut_scan
from jaxad.data.files.mask_pairs import mask_beside, separate_masks
from jaxad.data.files.mask_search import refuse_masks
from jaxad.data.files.names import is_archive, is_table
from jaxad.data.files.normals import check_apart, check_one_class, refuse_named_masks
from jaxad.data.files.npz import read_npz
from jaxad.data.files.reading import read_items, read_split
from jaxad.data.files.splitting import Splitting
from jaxad.data.files.tables import read_rows
from jaxad.data.files.tree import check_not_hidden, describe_missing
from jaxad.data.files.unread import find_unread, tell_unread
from jaxad.data.prepare.preparation import to_depth
from jaxad.data.prepare.prepare_images import prepare_image
from jaxad.data.prepare.preprocess import native
from jaxad.data.sources import check_split, report_files
from jaxad.errors import UserError
from jaxad.extension import load_object
from jaxad.types import Split

if TYPE_CHECKING:  # it imports TensorFlow, which takes seconds
    from jaxad.data.published.manual import ManualBuilder

logger = logging.getLogger(__name__)


def reading_of(data: ConfigDict) -> Reading:
    """Returns how the files of the run's data set were read; raises a UserError if it has none."""
    info = data_set_info(data.name)
    if info.scan_reading:
        return load_object(info.scan_reading, "config.data.name")(settings.preparation(data))
    reading = settings.reading(data, info.format_of_files)
    builder = _published_builder(data)
    return reading if builder is None else builder.reading_of(reading)


def _published_builder(data: ConfigDict) -> "type[ManualBuilder] | None":
    info = data_set_info(data.name)
    return info.load_builder() if info.kind == "published" else None


# --- Pixels.


def prepare_pixels(
    pixels: Shaped[np.ndarray, "..."], data: ConfigDict, affine: Shaped[np.ndarray, "..."] | None
) -> Shaped[np.ndarray, "n s s c"]:
    """Prepares raw pixels as the pixels of the run's files were.

    Args:
        pixels: for a run on images one image [H, W] (grey) or [H, W, 3], or images [N, H, W]
            (grey) or [N, H, W, C] of any size. For a run on scans one scan [X, Y, Z], or
            [X, Y, Z, C] if the run is on several modalities.
        data: `config.data` of a run on files, or on a data set with a `scan_reading`.
        affine: 4 x 4 matrix of a scan from indices to mm, RAS+; None: the axes point to right,
            anterior and superior, at 1 mm.

    Returns:
        uint8 or uint16 images, S = `config.data.image_size`.

    Raises:
        UserError: they cannot be prepared.
    """
    pixels = native(pixels, "pixels")
    if data_set_info(data.name).format_of_files != "image":
        return _cut_scan(pixels, data, np.eye(4) if affine is None else np.asarray(affine))
    is_one_colour_image = pixels.ndim == 3 and pixels.shape[-1] == 3
    stack = pixels[None] if pixels.ndim == 2 or is_one_colour_image else pixels
    stack = stack[..., None] if stack.ndim == 3 else stack
    if stack.ndim != 4 or not len(stack):
        raise UserError(
            f"images: have shape {pixels.shape}; give [H, W], [N, H, W] or [N, H, W, C]."
        )
    preparation = settings.preparation(data)
    return np.stack(
        [prepare_image(image, preparation, f"image {number}") for number, image in enumerate(stack)]
    )


def _cut_scan(
    voxels: Shaped[np.ndarray, "..."], data: ConfigDict, affine: Shaped[np.ndarray, "..."]
) -> Shaped[np.ndarray, "n s s c"]:
    """Cuts slices out of a scan [X, Y, Z], or of one of several modalities [X, Y, Z, C]."""
    import nibabel as nib

    from jaxad.data.readers.nifti import to_right_anterior_superior

    reading, is_multimodal = reading_of(data), "," in data.modality
    channels = reading.preparation.channels
    if voxels.ndim != 3 + is_multimodal or (is_multimodal and voxels.shape[-1] != channels):
        shape = f"[X, Y, Z, {channels}], {data.modality}" if is_multimodal else "one scan [X, Y, Z]"
        raise UserError(f"scan: has shape {voxels.shape}; give {shape}.")
    if affine.shape != (4, 4) or voxels.dtype.kind not in "buif":
        raise UserError(
            f"scan: is {voxels.dtype} with an affine of shape {affine.shape}; give real numbers "
            "and an affine of 4 x 4."
        )
    modalities = [voxels[..., place] for place in range(channels)] if is_multimodal else [voxels]
    volumes = []
    for modality in map(_as_in_file, modalities):
        image = nib.Nifti1Image(modality, affine.astype(np.float64))
        volumes.append(to_right_anterior_superior(image, Path("scan"), modality.nbytes))
    volumes = volumes * channels if len(volumes) == 1 else volumes
    scan = cut_scan(volumes, None, reading)
    if scan.note:
        logger.warning(scan.note)
    return scan.slices.images


def _as_in_file(voxels: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "x y z"]:
    """Converts types that NIfTI files rarely have (NumPy's defaults) to ones that hold the values.

    The reader of files refuses or rounds 64-bit integers and 16-bit floats.
    """
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


# --- Files.


def find_items(
    path: Path,
    data: ConfigDict,
    *,
    normal: bool = False,
    allow_outside_root: bool = False,
    flag: str = "--allow_outside_root=True",
    group_pattern: str = "",
) -> list[Item]:
    """Finds the files at a path that a run can score, in a fixed order, without reading them.

    The path is a folder of images, scans or DICOM series, one of them, or a table of them. If all
    must be `normal`, hints at anomalies are refused. `allow_outside_root`, which the user sets by
    `flag`, lets a table name files outside its folder by absolute paths, whatever the run's own
    table may do. `group_pattern` replaces the run's expression that finds the patient in a path;
    "" keeps it. A file in which it finds none is its own patient, with a message, or an error if
    all must be `normal`: calibration counts patients.

    Raises:
        UserError: the run's data set has no files, or these cannot be used.
    """
    try:
        file_format = data_set_info(data.name).format_of_files
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if "," in data.modality:
        raise UserError(
            f"{path}: a run on the modalities {data.modality} cannot read files; stack the "
            "modalities of a scan into an array [X, Y, Z, modality] and use detector.preprocess."
        )
    if not path.exists():
        raise UserError(f"{path}: {describe_missing(path)}")
    check_not_hidden(path)
    splitting, builder = _splitting(data, group_pattern, normal), _published_builder(data)
    if is_table(path):
        rows = read_rows(
            path, file_format, splitting,
            labels="optional" if normal else "ignored",
            allow_outside_root=allow_outside_root, flag=flag,
        )  # fmt: skip
        return _report_unmatched(path, [item for _, item in rows], splitting, file_format)
    # Names of published scans do not tell which scan a mask marks.
    refuses_masks = normal and file_format == "nifti" and builder is not None
    if not path.is_file():
        files = candidates(path, file_format)
        if normal:
            check_one_class(path, files, splitting)
        if refuses_masks:
            refuse_named_masks(separate_masks(files)[1], data.name)
        items = (read_normal_folder if normal else read_any_folder)(path, file_format, splitting)
        _report_unmatched(path, items, splitting, file_format)
        # Masks that are left out are reported, or refused, where items are listed.
        unread = find_unread(path, file_format, files)
        tell_unread(unread, is_strict=normal and data.on_error == "raise")
    elif file_format == "dicom":
        raise UserError(f"{path}: is a single file; name the folder of its series.")
    elif file_format == "nifti" and path.name.lower().endswith(FORMATS["image"].suffixes):
        raise UserError(
            f"{path}: is an image of unknown preparation; a run on '{data.name}' takes scans "
            "(.nii, .nii.gz), or prepared images as an .npz file."
        )
    elif noun := noun_of_other_kind(path, file_format):
        raise UserError(
            f"{path}: is {noun}; a run on '{data.name}' takes {FORMATS[file_format].name}, or "
            "prepared images as an .npz file."
        )
    else:
        refuse_masks([path], file_format, path.parent, "name what it marks")
        mask = mask_beside(path, file_format) if normal else None
        if refuses_masks and mask is not None:
            refuse_named_masks([mask], data.name)
        # The file of one scan need not be named as the run's files are: its patient is unknown.
        group = splitting.patient_of(path, path.name) if group_pattern else path.name
        is_unnamed = group == path.name
        items = [Item(path.name, group, (path,), label=0, mask=mask, is_unnamed=is_unnamed)]
    return items if builder is None else builder.of_site(items, data.modality)


def _splitting(data: ConfigDict, group_pattern: str, normal: bool) -> Splitting:
    """Returns how files are assigned to patients; see `find_items`."""
    info, field = data_set_info(data.name), find("data.group_pattern")
    assert field is not None
    if group_pattern and not (info.scan_reading or info.kinds & set(field.data)):
        refuse_group_pattern(
            group_pattern, f"a run on '{data.name}', which finds patients in its own way"
        )
    table = "--normals=TABLE with a column group"
    splitting = dataclasses.replace(
        settings.splitting(data),
        allows_unmatched=not normal,
        remedy=f"give --group_pattern=EXPRESSION that finds one in every path, or {table}",
    )
    if not group_pattern:
        return splitting
    return dataclasses.replace(
        splitting,
        group_pattern=group_pattern,
        flag="--group_pattern",
        remedy=f"change it so that every file has one, or give {table}",
    )


def refuse_group_pattern(group_pattern: str, source: str) -> None:
    """Raises a UserError if a pattern is given for images whose patients it cannot change."""
    if group_pattern:
        raise UserError(f"--group_pattern: has no effect on {source}; leave it out.")


def _report_unmatched(
    path: Path, items: list[Item], splitting: Splitting, kind: Kind
) -> list[Item]:
    """Returns the items after a note on those in which the pattern finds no patient.

    Files in formats that are not read do not count.
    """
    pattern = splitting.group_pattern
    readable = [item for item in items if not is_other_format(item.paths[0], kind)]
    unmatched = [i for i in readable if i.is_unnamed and re.search(pattern, i.group) is None]
    if unmatched:
        number = f"{len(unmatched):,} of {len(readable):,} files"
        logger.warning(
            f"note: {path}: {splitting.flag} '{pattern}' finds no patient in {number}, such as "
            f"'{unmatched[0].id}'; each of them counts as a patient of its own. To name their "
            "patients, give --group_pattern or a table with a column group."
        )
    return items


def read_files(
    path: Path,
    data: ConfigDict,
    *,
    with_labels: bool = False,
    allow_outside_root: bool = False,
    flag: str = "--allow_outside_root=True",
    group_pattern: str = "",
) -> Split:
    """Reads files as the run's data set was read; see `find_items`.

    With `with_labels`, labels and masks count, and hints at anomalies are refused (`find_items`).
    Without, all slices of a scan are kept and labelled 0.

    Raises:
        UserError: see `find_items`, or a file cannot be read.
    """
    items = find_items(
        path, data, normal=with_labels, allow_outside_root=allow_outside_root, flag=flag,
        group_pattern=group_pattern,
    )  # fmt: skip
    reading = reading_of(data)
    split = read_split(items if with_labels else _unlabelled(items), reading, str(path))
    images = to_depth_of_run(split.images[:], data, reading)
    return dataclasses.replace(report_files(split, str(path), for_run=True), images=images)


def read_rows_of(items: Sequence[Item], data: ConfigDict) -> Iterator[Rows]:
    """Reads files to score one by one, in their order.

    Rows of bad files and of blank images have an `error`.
    """
    reading = dataclasses.replace(reading_of(data), on_error="skip")
    for rows in read_items(_unlabelled(items), reading, ""):
        images = to_depth_of_run(rows.images, data, reading)
        yield dataclasses.replace(rows, images=images, error=rows.error or rows.blank)


def _unlabelled(items: Sequence[Item]) -> list[Item]:
    return [dataclasses.replace(item, label=0, mask=None) for item in items]


def to_depth_of_run(
    images: Shaped[np.ndarray, "n s s c"], data: ConfigDict, reading: Reading
) -> Shaped[np.ndarray, "n s s c"]:
    """Converts images to the type of a published data set; others keep the type of their files."""
    builder = _published_builder(data)
    return images if builder is None else to_depth(images, builder.depth(reading.preparation))


def read_normals(
    path: Path, data: ConfigDict, *, allow_outside_root: bool = False, group_pattern: str = ""
) -> Split:
    """Reads normal images of another site, to calibrate on.

    The path is an `.npz` file (see `npz_readers`), without labels or with labels 0, whose `group`
    names the patient of each image: slices of one patient that count as several patients would void
    any guarantee. For runs on files it may also be what `find_items` takes, a table with
    `allow_outside_root` among them, and `group_pattern` may find the patients.

    Raises:
        UserError: the images cannot be read, an `.npz` file has no `group`, an image is unusable,
            is labelled anomalous or marked by a mask, or belongs to the run's own data.
    """
    check_not_hidden(path)
    for name, root in ((data.name, data.root), (data.test.name, data.test.root)):
        info = data_set_info(name) if name else None
        if info is not None and (info.kind == "npz" or (info.file_format and root)):
            check_apart(
                path, root or ".", is_npz=info.kind == "npz", flag="--normals",
                remedy="give normal images that are in none of its splits. --mode=evaluate "
                "calibrates on the run's val split",
            )  # fmt: skip
    if is_archive(path) or not data_set_info(data.name).takes_files:
        refuse_group_pattern(group_pattern, f"'{path}', whose array group names the patients")
        split = read_npz(path, needed=("group",))
    else:
        split = read_files(
            path, data, with_labels=True, allow_outside_root=allow_outside_root,
            group_pattern=group_pattern,
        )  # fmt: skip
    shape = data_shape(data)
    remedy = "leave it out of --normals"
    if is_table(path):
        remedy += ", whatever its split: the column split of this table is not used"
    check_split(split, f"'{path}'", shape, normal=True, remedy=remedy)
    return split
