"""Volumes: scans on a grid whose axes point right, anterior, superior, whatever the file has."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped

from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz")

#: Of the grid's position in mm, between an image and its mask or its other modalities.
_SAME_PLACE_MM = 0.5


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
    def spacing(self) -> tuple[float, float, float]:
        """Distances of voxels along X, Y and Z in mm."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())


def read_nifti(path: Path) -> Volume:
    """The scan of a `.nii` or `.nii.gz` file, turned by its affine to the nearest RAS+ axes.

    Raises:
        DataError: it cannot be read, is not of three dimensions, or has values that are not real
            numbers or not finite, or an affine that tells no orientation.
    """
    size = check_file(path)
    with readable(path, "NIfTI file"):
        image = nib.Nifti1Image.from_filename(path, mmap=False)
        return turn(image, path, size)


def turn(image: nib.Nifti1Image, path: Path, file_size: int) -> Volume:
    """An image that is open and not yet read, turned to RAS+; see `read_nifti`.

    `file_size` in bytes tells what the file can hold at most.
    """
    shape = tuple(int(length) for length in image.shape)
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3:
        raise DataError(
            f"{path}: has {len(shape)} dimensions {shape}, a scan has 3; save the volume that is "
            "wanted in a file of its own."
        )
    if min(shape) < 1:
        raise DataError(f"{path}: has shape {shape}, nothing in it; leave it out.")
    stored = image.get_data_dtype()
    if stored.kind not in "uif" or stored.itemsize > 8:
        raise DataError(f"{path}: holds {stored}; save it as integers or floats.")
    num_voxels = int(np.prod(shape, dtype=object))
    # As floats, which scaling makes of integers.
    check_memory(path, num_voxels * max(4, stored.itemsize))
    _check_length(path, num_voxels * stored.itemsize, file_size)
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or not _is_regular(affine):
        told = "there is none" if affine is None else np.round(affine[:3, :3], 3).tolist()
        raise DataError(f"{path}: its affine tells no orientation ({told}); repair the header.")
    turned = nib.as_closest_canonical(image)
    voxels = np.asarray(turned.dataobj)
    voxels = voxels.reshape(voxels.shape[:3])
    if not np.isfinite(voxels).all():
        raise DataError(f"{path}: has NaN or infinite voxels; repair it or leave it out.")
    return Volume(voxels, np.asarray(turned.affine, np.float64), path)


def _check_length(path: Path, num_bytes: int, file_size: int) -> None:
    """Raises a DataError where the file cannot hold what its header promises."""
    # Deflate shrinks at most 1032 times.
    most = file_size * 1032 if path.name.endswith(".gz") else file_size
    if num_bytes > most:
        raise DataError(
            f"{path}: its header promises {num_bytes:,} bytes of voxels, the file of {file_size:,} "
            "bytes cannot hold them; copy it again or leave it out."
        )


def _is_regular(affine: Float[np.ndarray, "4 4"]) -> bool:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((lengths > 1e-6) & (lengths < 1e6)).all():
        return False
    return abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3


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
