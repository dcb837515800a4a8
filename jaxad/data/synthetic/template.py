"""The ICBM152 template of the installed nilearn package, smoothed to an image spacing.

nilearn ships the skull-stripped T1 average and the grey- and white-matter probability maps as
197 x 233 x 189 voxels of 1 mm, indexed (x, y, z) with x to the right, y to the front, z up.
nilearn is not imported, which would take seconds: its files are found through its spec.
"""

import dataclasses
import functools
import importlib.util
import pathlib

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from jaxad.errors import UserError

FIELD_OF_VIEW_MM = 200.0
"""Width and height of every slice."""

NUM_SLICES = 20
"""Axial slices per subject."""

CENTRE_VOXEL = (98.0, 117.0, 88.0)
"""The template voxel (x, y, z) at the centre of the field of view."""

FIRST_SLICE_VOXEL, LAST_SLICE_VOXEL = 52.0, 118.0
"""Heights (z, voxels of 1 mm) of the first and the last slice; slices are 3.47 mm apart."""

_MARGIN = 4
# Gaussian whose full width at half maximum is a slice thickness of about 2.4 mm.
_THROUGH_PLANE_SIGMA_MM = 1.0
# In-plane Gaussian, in pixels: it halves the contrast at about 0.45 cycles a pixel, so that
# sampling on the pixel grid neither aliases nor looks blurred.
_IN_PLANE_SIGMA_PIXELS = 0.4
# Ventricles are no tissue, and deeper than sulci and outer fissures.
_DEEP_MM = 24.0
_VENTRICLES_TOP_VOXEL = 104
_CSF_BLUR_MM = 5.0
_COARSE_STEP = 2


@dataclasses.dataclass(frozen=True)
class Template:
    """The smoothed template, cropped to the brain. All volumes are float32 and share a shape."""

    #: voxel (x, y, z) of the full template that is index (0, 0, 0) here
    origin: tuple[float, float, float]
    cover: Float[np.ndarray, "x y z"]  # share of a voxel that is brain, in [0, 1]
    t1: Float[np.ndarray, "x y z"]  # T1 intensity in [0, 1], falling to 0 outside the brain
    grey: Float[np.ndarray, "x y z"]  # grey-matter probability in [0, 1]
    white: Float[np.ndarray, "x y z"]  # white-matter probability in [0, 1]
    #: direction towards the nearest deep CSF, a vector of length 0 to 1 per voxel of a grid that is
    #: `coarse_step` times coarser
    ventricle_pull: Float[np.ndarray, "3 x2 y2 z2"]
    coarse_step: int = _COARSE_STEP  # voxels of the template per voxel of `ventricle_pull`


def spacing_mm(image_size: int) -> float:
    """Returns the width of a pixel in mm for slices of `image_size` pixels per side."""
    return FIELD_OF_VIEW_MM / image_size


def smoothing_mm(image_size: int) -> tuple[float, float, float]:
    """Returns the standard deviations of the Gaussian that smooths the template along x, y, z."""
    in_plane = _IN_PLANE_SIGMA_PIXELS * spacing_mm(image_size)
    return in_plane, in_plane, _THROUGH_PLANE_SIGMA_MM


def template_path(kind: str) -> pathlib.Path:
    """Returns the path of nilearn's template volume `kind` ("t1", "gm" or "wm").

    Raises:
        UserError: nilearn is not installed, or lacks the file.
    """
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    path = package_folder("nilearn") / "datasets" / "data" / name
    if not path.is_file():
        raise UserError(
            f"nilearn's template file {name} is missing from '{path.parent}'; "
            "reinstall it with pip install --force-reinstall nilearn."
        )
    return path


def package_folder(name: str) -> pathlib.Path:
    """Returns the folder of the installed package `name` without importing it.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the embedded data need the package '{name}'; install it with pip install {name}."
        )
    return pathlib.Path(spec.submodule_search_locations[0])


def read_volume(kind: str) -> Float[np.ndarray, "x y z"]:
    """Reads a template volume as float32 in [0, 1], shape (197, 233, 189), 1 mm voxels."""
    import nibabel  # takes 0.3 s; only processes that make subjects need it

    image = nibabel.nifti1.load(template_path(kind))
    return np.asarray(image.dataobj, dtype=np.float32) / np.float32(255)


@functools.lru_cache(maxsize=2)
def load_template(image_size: int) -> Template:
    """Loads the template, smoothed for slices of `image_size` pixels; once per process.

    Takes about 3 s and 80 MB the first time. The arrays are read-only, because they are shared.
    """
    t1, grey, white = (read_volume(kind) for kind in ("t1", "gm", "wm"))
    brain = ndimage.binary_fill_holes(t1 > 0)
    box, origin = _bounding_box(brain)
    t1, grey, white, brain = t1[box], grey[box], white[box], brain[box]
    pull = _ventricle_pull(brain, grey + white, _VENTRICLES_TOP_VOXEL - int(origin[2]))

    cover, t1, grey, white = (
        ndimage.gaussian_filter(volume.astype(np.float32), smoothing_mm(image_size), truncate=3.0)
        for volume in (brain, t1, grey, white)
    )
    for volume in (cover, t1, grey, white, pull):
        volume.setflags(write=False)
    return Template(origin, cover, t1, grey, white, pull)


def _bounding_box(brain: np.ndarray) -> tuple[tuple[slice, ...], tuple[float, float, float]]:
    """Returns the box around `brain` with a margin, as slices, and its first voxel."""
    (box,) = ndimage.find_objects(brain.astype(np.int8))
    bounds = tuple(slice(max(side.start - _MARGIN, 0), side.stop + _MARGIN) for side in box)
    x, y, z = (float(bound.start) for bound in bounds)
    return bounds, (x, y, z)


def _ventricle_pull(
    brain: np.ndarray, tissue: Float[np.ndarray, "x y z"], top: int
) -> Float[np.ndarray, "3 x2 y2 z2"]:
    """Returns vectors, at most 1 long, toward the ventricles (the deep CSF below slice `top`)."""
    step = (slice(None, None, _COARSE_STEP),) * 3
    depth = ndimage.distance_transform_edt(brain[step]) * _COARSE_STEP
    csf = np.clip(1 - tissue[step], 0, 1) * (depth > _DEEP_MM)
    csf[:, :, top // _COARSE_STEP :] = 0  # above is the fissure between the hemispheres
    blurred = ndimage.gaussian_filter(csf.astype(np.float32), _CSF_BLUR_MM / _COARSE_STEP)
    gradient = np.stack(np.gradient(blurred))
    length = np.sqrt((gradient**2).sum(axis=0))
    # Scaled by a quantile, so that one sharp corner does not weaken all other places.
    strongest = np.quantile(length[length > 1e-4], 0.995)
    return (gradient / np.maximum(length, strongest)).astype(np.float32)
