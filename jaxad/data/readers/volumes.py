"""Scans in memory, and the grids of their voxels."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from jaxad.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz")

#: Largest distance in mm between the grids of a scan and of its mask or its other modalities.
_TOLERANCE_MM = 0.5


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions of voxels."""

    shape: tuple[int, int, int]  # number of voxels along X (right), Y (anterior) and Z (superior)
    affine: Float[np.ndarray, "4 4"]  # maps voxel indices to mm, RAS+

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxels along X, Y and Z in mm."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())


@dataclasses.dataclass(frozen=True)
class Volume:
    """A scan with axes to the patient's right, anterior and superior."""

    voxels: Shaped[np.ndarray, "x y z"]  # [X, Y, Z]
    affine: Float[np.ndarray, "4 4"]  # maps voxel indices to mm, RAS+
    path: Path  # the file or folder that it was read from, for messages

    @property
    def grid(self) -> Grid:
        """Positions of the voxels."""
        x, y, z = self.voxels.shape
        return Grid((x, y, z), self.affine)


def check_same_grid(first: Volume, second: Volume, what: str) -> None:
    """Raises a DataError if a scan and its mask or another modality do not lie on the same grid."""
    if first.voxels.shape != second.voxels.shape:
        raise DataError(
            f"{second.path}: the {what} has shape {second.voxels.shape}, but the scan "
            f"'{first.path}' has {first.voxels.shape}; resample it onto the scan's grid."
        )
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], np.float64) * np.array(
        [*(length - 1 for length in first.voxels.shape), 1]
    )
    distance = float(np.abs(corners @ (first.affine - second.affine).T).max())
    if distance > _TOLERANCE_MM:
        raise DataError(
            f"{second.path}: the {what} lies up to {distance:.3g} mm away from the scan "
            f"'{first.path}'; resample it onto the scan's grid."
        )
