"""The ICBM152 template of the installed nilearn package, smoothed to an image spacing.

nilearn ships the skull-stripped T1 average and the grey- and white-matter probability maps as
197 x 233 x 189 voxels of 1 mm, x to the right, y to the front, z up. Arrays of the package are
indexed (z, y, x), in the order of memory; points are (x, y, z).
nilearn is not imported, which would take seconds: its files are found through its spec.
"""

import dataclasses
import functools
import importlib.util
import pathlib

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from jaxad.data.synthetic.sampling import Volumes
from jaxad.errors import UserError

FIELD_OF_VIEW_MM = 200.0
"""Width and height of every slice."""

NUM_SLICES = 20
"""Axial slices per subject."""

CENTRE_VOXEL = (98.0, 117.0, 88.0)
"""The template voxel (x, y, z) at the centre of the field of view."""

FIRST_SLICE_VOXEL, LAST_SLICE_VOXEL = 52.0, 118.0
"""Heights (z, voxels of 1 mm) of the first and the last slice; slices are 3.47 mm apart."""

LEAST_COVER = 0.25
"""Share of brain up to which the tissues of a voxel do not matter."""

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
# A weaker pull counts as none; it would move the borders of ventricles by less than 5 micrometres.
_LEAST_PULL = 1e-3


@dataclasses.dataclass(frozen=True)
class Template:
    """The smoothed template, cropped to the brain."""

    #: voxel (x, y, z) of the full template that is index (0, 0, 0) here
    origin: tuple[float, float, float]
    #: In turn: `cover`, the share of a voxel that is brain; the T1 intensity, falling to 0 outside
    #: the brain; grey- and white-matter probability. All are in [0, 1]. The cells with some
    #: cover above `LEAST_COVER` are sampled.
    tissues: Volumes
    #: x, y and z of the direction towards the nearest deep CSF, a vector of length 0 to 1, then
    #: zeros, on a grid that is `coarse_step` times coarser
    ventricle_pull: Volumes
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


def read_volume(kind: str) -> UInt8[np.ndarray, "z y x"]:
    """Reads a template volume, shape (189, 233, 197), 1 mm voxels; v stands for v / 255."""
    import nibabel  # takes 0.3 s; only processes that make subjects need it

    return np.asarray(nibabel.nifti1.load(template_path(kind)).dataobj).T


@functools.lru_cache(maxsize=2)
def load_template(image_size: int) -> Template:
    """Loads the template, smoothed for slices of `image_size` pixels; once per process.

    Takes about half a second and 80 MB the first time.
    """
    volumes = [read_volume(kind) for kind in ("t1", "gm", "wm")]
    box = _bounding_box(volumes[0] > 0)
    t1, grey, white = (volume[box].astype(np.float32) / np.float32(255) for volume in volumes)
    brain = ndimage.binary_fill_holes(t1 > 0)
    z, y, x = (float(side.start) for side in box)
    pull = _ventricle_pull(brain, grey + white, _VENTRICLES_TOP_VOXEL - int(z))

    sigmas = smoothing_mm(image_size)[::-1]
    cover, t1, grey, white = (
        ndimage.gaussian_filter(volume, sigmas, mode="constant", truncate=3.0)
        for volume in (brain.astype(np.float32), t1, grey, white)
    )
    tissues = Volumes.interleave((cover, t1, grey, white), cover > LEAST_COVER)
    return Template((x, y, z), tissues, pull)


def _bounding_box(brain: Bool[np.ndarray, "z y x"]) -> tuple[slice, ...]:
    """Returns the box around `brain` with a margin."""
    (box,) = ndimage.find_objects(brain.view(np.int8))
    return tuple(slice(max(side.start - _MARGIN, 0), side.stop + _MARGIN) for side in box)


def _ventricle_pull(
    brain: Bool[np.ndarray, "z y x"], tissue: Float[np.ndarray, "z y x"], top: int
) -> Volumes:
    """Returns vectors, at most 1 long, toward the ventricles (the deep CSF below slice `top`)."""
    step = (slice(None, None, _COARSE_STEP),) * 3
    depth = ndimage.distance_transform_edt(brain[step]) * _COARSE_STEP
    csf = np.clip(1 - tissue[step], 0, 1) * (depth > _DEEP_MM)
    csf[top // _COARSE_STEP :] = 0  # above is the fissure between the hemispheres
    blurred = ndimage.gaussian_filter(csf.astype(np.float32), _CSF_BLUR_MM / _COARSE_STEP)
    gradient = np.stack(np.gradient(blurred)[::-1])
    length = np.sqrt((gradient**2).sum(axis=0))
    # Scaled by a quantile, so that one sharp corner does not weaken all other places.
    strongest = np.quantile(length[length > 1e-4], 0.995)
    pull = gradient / np.maximum(length, strongest)
    return Volumes.interleave(pull, length > _LEAST_PULL * strongest)
