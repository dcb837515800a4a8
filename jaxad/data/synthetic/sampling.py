"""Linear interpolation of four volumes at once, which reads each voxel from memory only once."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

NUM_VOLUMES = 4


@dataclasses.dataclass(frozen=True)
class Volumes:
    """Four volumes on one grid, and the cells of the grid in which they are sampled.

    A cell is the cube between a voxel and the next voxels along z, y and x. The arrays are
    read-only, because all subjects share them.
    """

    #: the four values of a voxel are adjacent; `values.T` are four volumes indexed (x, y, z)
    values: Float[np.ndarray, "z y x 4"]
    #: whether a corner of the voxel's cell is relevant; False for the outermost cells
    relevant: Bool[np.ndarray, "z y x"]

    @classmethod
    def interleave(
        cls, volumes: Iterable[Float[np.ndarray, "z y x"]], relevant: Bool[np.ndarray, "z y x"]
    ) -> "Volumes":
        """Copies up to four volumes into one array, of float32.

        `relevant` marks the voxels that matter: a point is sampled if one of the eight voxels
        around it is relevant.
        """
        values = np.zeros((*relevant.shape, NUM_VOLUMES), np.float32)
        for index, volume in enumerate(volumes):
            values[..., index] = volume
        # The origin moves the 2 x 2 x 2 window from before a voxel to after it.
        cells = ndimage.maximum_filter(relevant, 2, origin=-1)
        for axis in range(3):
            np.moveaxis(cells, axis, 0)[[0, -2, -1]] = False
        for array in (values, cells):
            array.setflags(write=False)
        return cls(values, cells)

    def sample(
        self, points: Float[np.ndarray, "3 n"]
    ) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m 4"]]:
        """Returns the indices of the points in relevant cells, and the values interpolated there.

        `points` are float32 voxels (x, y, z); they may lie outside the volumes.
        """
        depth, height, width = self.relevant.shape
        cells = points.astype(np.int32)
        np.clip(cells, 0, np.array([[width], [height], [depth]], np.int32) - 2, out=cells)
        first = (cells[2] * height + cells[1]) * width + cells[0]
        inside = np.flatnonzero(self.relevant.reshape(-1).take(first))
        first = first[inside]
        # Repeating makes all operands contiguous, for which numpy's loops are fastest.
        fractions = points.take(inside, axis=1) - cells.take(inside, axis=1).astype(np.float32)
        fractions = np.repeat(fractions, NUM_VOLUMES, axis=1)
        # One complex128 item holds the four float32 values of a voxel: `take` copies it at once.
        voxels = self.values.reshape(-1, NUM_VOLUMES).view(np.complex128)[:, 0]
        corners = [
            voxels.take(first + (z * height + y) * width + x).view(np.float32)
            for z in range(2)
            for y in range(2)
            for x in range(2)
        ]
        for fraction in fractions:  # along x, then y, then z
            pairs = list(zip(corners[::2], corners[1::2], strict=True))
            for low, high in pairs:  # low + fraction * (high - low)
                high -= low
                high *= fraction
                low += high
            corners = [low for low, _ in pairs]
        return inside, corners[0].reshape(-1, NUM_VOLUMES)
