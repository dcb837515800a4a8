"""The space of a brain template: scans are resampled onto its grid of slices before they are cut.

Coordinates are in mm, RAS+.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from jaxad.data.prepare.preparation import check_pixels
from jaxad.data.readers.volumes import Grid, Volume
from jaxad.errors import DataError

#: Share of zeros below which a scan has no background.
_MIN_ZEROS = 0.2

#: Share of the brain's voxels that its box leaves out at each side, such as stray voxels.
_TAIL = 0.005

#: Smallest and largest length of a brain along each axis, relative to the template's.
_LENGTHS = (0.7, 1.35)

#: Smallest and largest volume of a brain in litres; a whole head has more than 3.
_LITRES = (0.8, 2.8)

#: A brain whose place differs by at most this much along each axis lies in the template's space.
_TOLERANCE_MM = 15.0

#: Variance of a uniform distribution over a voxel of 1 mm: what the voxels themselves blur.
_VOXEL_VARIANCE = 1 / 12


@dataclasses.dataclass(frozen=True)
class StandardSpace:
    """A template's grid of slices, and the place of the template's brain."""

    template: str  # name of the template, for messages
    grid: Grid  # centres of the pixels of all slices
    #: standard deviations in mm along X, Y and Z of the Gaussian that smooths a scan of 1 mm
    #: voxels; coarser scans are smoothed less
    smoothing_mm: tuple[float, float, float]
    low_mm: tuple[float, float, float]  # lowest X, Y and Z of the template's brain, see `brain_box`
    high_mm: tuple[float, float, float]  # highest X, Y and Z of the template's brain

    def align(self, volume: Volume) -> tuple[Volume, str]:
        """Checks a scan, and shifts it if its brain does not lie where the template's does.

        The middle of the brain's width and length and its top are compared. A shift puts the centre
        of the grid where it lies in the template, relative to the size of the brain.

        Returns:
            The scan, whose affine changes if it is shifted; and a note on the shift, or "".

        Raises:
            DataError: the scan is constant, the background is not 0, or the brain is too small or
                too large.
        """
        check_pixels(volume.voxels, str(volume.path))
        inside = volume.voxels != 0
        if 1 - inside.mean() < _MIN_ZEROS:
            raise DataError(
                f"{volume.path}: has no background of zeros; give a skull-stripped T1-weighted "
                "scan, 0 outside the brain."
            )
        low, high = brain_box(volume)
        lengths = np.array(self.high_mm) - self.low_mm
        ratios = (high - low) / lengths
        litres = float(inside.sum()) * abs(np.linalg.det(volume.affine[:3, :3])) / 1e6
        is_brain = ratios.min() >= _LENGTHS[0] and ratios.max() <= _LENGTHS[1]
        if not is_brain or not _LITRES[0] <= litres <= _LITRES[1]:
            sizes = " x ".join(f"{length:.0f}" for length in high - low)
            # Two digits; never in scientific notation.
            volume_text = f"{litres:,.0f}" if litres >= 10 else f"{litres:.2g}"
            usual = " x ".join(f"{length:.0f}" for length in lengths)
            raise DataError(
                f"{volume.path}: what is not 0 measures {sizes} mm ({volume_text} litres), unlike "
                f"an adult brain (about {usual} mm); check the voxel size and the axes, remove the "
                "skull, and give the whole brain."
            )
        place, expected = _anchor(low, high), _anchor(np.array(self.low_mm), np.array(self.high_mm))
        distance = np.abs(place - expected)
        if distance.max() <= _TOLERANCE_MM:
            return volume, ""
        centre = self._centre()
        shift = centre - (place + float(ratios[:2].mean()) * (centre - expected))
        affine = volume.affine.copy()
        affine[:3, 3] += shift
        return dataclasses.replace(volume, affine=affine), (
            f"note: {volume.path}: its brain lies {distance.max():.0f} mm away from that of the "
            f"{self.template} template; it is shifted there, but neither rotated nor scaled. "
            "Register it to the template for scores that compare."
        )

    def _centre(self) -> Float[np.ndarray, "3"]:
        middle = (np.array(self.grid.shape) - 1) / 2
        return self.grid.affine[:3, :3] @ middle + self.grid.affine[:3, 3]

    def resample(self, volume: Volume) -> Volume:
        """Resamples a scan onto the grid: smoothed, then interpolated linearly.

        A pixel is brain, and not 0, if more than half of it is covered by voxels that are not 0, or
        if brain surrounds it.
        """
        deviations = [
            math.sqrt(max(0.0, deviation**2 + (1 - spacing**2) * _VOXEL_VARIANCE)) / spacing
            for deviation, spacing in zip(self.smoothing_mm, volume.grid.spacing, strict=True)
        ]
        values, cover = (
            self._sample(ndimage.gaussian_filter(voxels, deviations, truncate=3.0), volume.affine)
            for voxels in (
                volume.voxels.astype(np.float32),
                (volume.voxels != 0).astype(np.float32),
            )
        )
        inside = ndimage.binary_fill_holes(cover > 0.5)
        # 0 stands for the background alone.
        values[values == 0] = np.finfo(np.float32).tiny
        return Volume(np.where(inside, values, np.float32(0)), self.grid.affine, volume.path)

    def resample_mask(self, mask: Volume) -> Volume:
        """Resamples a mask onto the grid: 1 where more than half is marked."""
        shares = self._sample((mask.voxels != 0).astype(np.float32), mask.affine)
        return Volume((shares > 0.5).astype(np.uint8), self.grid.affine, mask.path)

    def _sample(
        self, voxels: Float[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
    ) -> Float[np.ndarray, "a b c"]:
        to_scan = np.linalg.inv(affine) @ self.grid.affine
        return ndimage.affine_transform(
            voxels, to_scan[:3, :3], to_scan[:3, 3], self.grid.shape, np.float32, order=1
        )

    def place_back(
        self, voxels: Float[np.ndarray, "a b c"], grid: Grid
    ) -> Float[np.ndarray, "x y z"]:
        """Maps values on this grid onto the grid of an aligned scan, linearly interpolated.

        The result is 0 beyond the first and the last slice. If several values fall on one voxel,
        the largest is kept.
        """
        steps = zip(grid.spacing, self.grid.spacing, strict=True)
        windows = [max(1, math.ceil(spacing / step - 1e-6)) for spacing, step in steps]
        to_here = np.linalg.inv(self.grid.affine) @ grid.affine
        return ndimage.affine_transform(
            ndimage.maximum_filter(voxels, windows), to_here[:3, :3], to_here[:3, 3], grid.shape,
            np.float32, order=1, mode="grid-constant",
        )  # fmt: skip


def brain_box(volume: Volume) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Returns the lowest and the highest X, Y and Z of the voxels that are not 0, in mm.

    At each side, `_TAIL` of the voxels may lie beyond.
    """
    # Every second voxel: a scan may have many.
    indices: Int[np.ndarray, "n 3"] = np.argwhere(volume.voxels[::2, ::2, ::2] != 0) * 2
    if not len(indices):  # a few stray voxels
        indices = np.argwhere(volume.voxels != 0)
    points = indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    low, high = np.quantile(points, (_TAIL, 1 - _TAIL), axis=0)
    return low, high


def _anchor(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Returns the middle of X and of Y and the top of Z.

    The lower end depends on how much of the brain stem is left.
    """
    return np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[2]])
