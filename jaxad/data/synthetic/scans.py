"""How a user's scan becomes slices like those of the embedded subjects."""

import numpy as np

from jaxad.data.files.items import Reading
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.standard_space import StandardSpace
from jaxad.data.readers.volumes import Grid
from jaxad.data.synthetic.template import (
    CENTRE_VOXEL,
    FIRST_SLICE_VOXEL,
    LAST_SLICE_VOXEL,
    NUM_SLICES,
    smoothing_mm,
    spacing_mm,
)

#: Position in mm, in the template's space, of its voxel (0, 0, 0). Voxels are 1 mm wide.
_ORIGIN_MM = np.array([-98.0, -134.0, -72.0])

#: Lowest and highest X, Y and Z of the template's brain, as `brain_box` measures them.
_BRAIN_LOW_MM, _BRAIN_HIGH_MM = (-66.0, -100.0, -60.0), (66.0, 66.0, 74.0)


def scan_reading(preparation: Preparation) -> Reading:
    """Returns how a skull-stripped T1-weighted NIfTI scan is read: as the 20 slices of a subject.

    The scan is smoothed, sampled and standardised over these slices as the template is.
    """
    size = preparation.image_size
    width, height = spacing_mm(size), (LAST_SLICE_VOXEL - FIRST_SLICE_VOXEL) / (NUM_SLICES - 1)
    affine = np.diag([width, width, height, 1.0])
    half = width * (size - 1) / 2
    x, y, _ = CENTRE_VOXEL
    affine[:3, 3] = _ORIGIN_MM + (x - half, y - half, FIRST_SLICE_VOXEL)
    space = StandardSpace(
        template="ICBM152",
        grid=Grid((size, size, NUM_SLICES), affine),
        smoothing_mm=smoothing_mm(size),
        low_mm=_BRAIN_LOW_MM,
        high_mm=_BRAIN_HIGH_MM,
    )
    return Reading("nifti", preparation, Cutting(), space=space)
