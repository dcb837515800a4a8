"""Volumes: scans on a grid whose axes point right, anterior, superior, whatever the file has."""

import dataclasses
import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped

from jaxad.data.prepare.preprocess import native
from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz")

#: Of the grid's position in mm, between an image and its mask or its other modalities.
_SAME_PLACE_MM = 0.5

_GZIP_MAGIC = b"\x1f\x8b"

#: What a file of NIfTI-2 starts with: the length of its header, in either order of bytes.
_NIFTI2_STARTS = ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where voxels lie.

    Attributes:
        shape: voxels to the patient's right, anterior and superior.
        affine: from voxel indices to mm, RAS+.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distances of voxels along X, Y and Z in mm."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())


@dataclasses.dataclass(frozen=True)
class Volume:
    """A scan.

    Attributes:
        voxels: [X, Y, Z], to the patient's right, anterior and superior.
        affine: from voxel indices to mm, RAS+.
        path: where it is from, for messages.
    """

    voxels: Shaped[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    path: Path

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        x, y, z = self.voxels.shape
        return Grid((x, y, z), self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """See `Grid.spacing`."""
        return self.grid.spacing


def read_nifti(path: Path) -> Volume:
    """The scan of a `.nii` or `.nii.gz` file, turned by its affine to the nearest RAS+ axes.

    Raises:
        DataError: it cannot be read, is not of three dimensions, or has values that are not real
            numbers or not finite, or an affine that tells no orientation.
    """
    size = check_file(path)
    with readable(path, "NIfTI file"), path.open("rb") as raw:
        image, file = _open(raw)
        is_zipped = file is not raw
        # Deflate shrinks at most 1032 times.
        volume = to_right_anterior_superior(image, path, size * 1032 if is_zipped else size)
        # The sum of what was zipped stands at its end, and is checked when that is read.
        while is_zipped and file.read(2**20):
            pass
        return volume


def _open(raw: io.BufferedIOBase) -> tuple[nib.Nifti1Image, io.BufferedIOBase]:
    """The image of a file whose voxels are not read yet, and what they come from, unzipped."""
    is_zipped = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    file: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if is_zipped else raw
    kind = nib.Nifti2Image if file.read(4) in _NIFTI2_STARTS else nib.Nifti1Image
    file.seek(0)
    return kind.from_file_map(kind.make_file_map({"image": file}), mmap=False), file


def like_file(path: Path, voxels: Float[np.ndarray, "x y z"]) -> nib.Nifti1Image:
    """Voxels in the order, on the grid and with the header of a file that `read_nifti` reads.

    Args:
        path: of the file.
        voxels: to the right, anterior and superior, as many as the file has.

    Raises:
        DataError: the file cannot be read.
    """
    with readable(path, "NIfTI file"), path.open("rb") as raw:
        given, _ = _open(raw)
        to_file = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(given.affine)
        )
        turned = nib.orientations.apply_orientation(voxels, to_file)
        header = given.header.copy()
        header.set_slope_inter(1, 0)
        header.set_data_dtype(turned.dtype)
        # Texts, which may name the patient.
        header.extensions.clear()
        for field in ("db_name", "aux_file", "intent_name", "descrip"):
            if field in header:
                header[field] = b""
        return type(given)(turned, given.affine, header)


def to_right_anterior_superior(image: nib.Nifti1Image, path: Path, most_bytes: int) -> Volume:
    """An image that is open and not yet read, turned to RAS+; see `read_nifti`.

    `most_bytes` tells how many its file can hold at most.
    """
    with readable(path, "NIfTI header"):
        shape = tuple(int(length) for length in image.shape)
        stored, affine = image.get_data_dtype(), image.affine
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3:
        raise DataError(
            f"{path}: has {len(shape)} dimensions {shape}, a scan has 3; save the volume that is "
            "wanted in a file of its own."
        )
    if min(shape) < 1:
        raise DataError(f"{path}: has shape {shape}, nothing in it; leave it out.")
    if stored.kind not in "uif" or stored.itemsize > 8:
        raise DataError(f"{path}: holds {stored}; save it as integers or floats.")
    num_voxels = int(np.prod(shape, dtype=object))
    num_bytes = num_voxels * stored.itemsize
    if num_bytes > most_bytes:
        raise DataError(
            f"{path}: its header promises {num_bytes:,} bytes of voxels, the file holds at most "
            f"{most_bytes:,}; copy it again or leave it out."
        )
    # As float64, which scaling makes of them.
    check_memory(path, num_voxels * 8)
    if affine is None or not np.isfinite(affine).all() or not _is_regular(affine):
        told = "there is none" if affine is None else np.round(affine[:3, :3], 3).tolist()
        raise DataError(f"{path}: its affine tells no orientation ({told}); repair the header.")
    with readable(path, "NIfTI file"):
        turned = nib.as_closest_canonical(image)
        voxels = native(np.asarray(turned.dataobj), str(path))
    voxels = voxels.reshape(voxels.shape[:3])
    if not np.isfinite(voxels).all():
        raise DataError(f"{path}: has NaN or infinite voxels; repair it or leave it out.")
    return Volume(voxels, np.asarray(turned.affine, np.float64), path)


def _is_regular(affine: Float[np.ndarray, "4 4"]) -> bool:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((lengths > 1e-6) & (lengths < 1e6)).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def check_same_grid(first: Volume, second: Volume, what: str) -> None:
    """Raises a DataError where two volumes do not lie on the same grid.

    Args:
        first: the scan.
        second: its mask, or another modality.
        what: how the second one is called.
    """
    if first.voxels.shape != second.voxels.shape:
        raise DataError(
            f"{second.path}: the {what} has shape {second.voxels.shape}, the scan '{first.path}' "
            f"{first.voxels.shape}; resample it onto the scan's grid."
        )
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], np.float64) * np.array(
        [*(length - 1 for length in first.voxels.shape), 1]
    )
    distance = float(np.abs(corners @ (first.affine - second.affine).T).max())
    if distance > _SAME_PLACE_MM:
        raise DataError(
            f"{second.path}: the {what} lies up to {distance:.3g} mm away from the scan "
            f"'{first.path}'; resample it onto the scan's grid."
        )
