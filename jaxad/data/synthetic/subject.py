"""One normal subject: a keyed random deformation and contrast of the template.

Lengths are in mm from the centre of the field of view, x to the right, y to the front, z up.
Arrays of slices are indexed (slice, row, column), the first row at the front of the head.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from jaxad.data.synthetic.fields import Purpose, SplineField, keyed_generator
from jaxad.data.synthetic.template import (
    CENTRE_VOXEL,
    FIRST_SLICE_VOXEL,
    LAST_SLICE_VOXEL,
    NUM_SLICES,
    Template,
    load_template,
    spacing_mm,
)

# Knot spacing and standard deviation of the displacement fields, in mm: head shape, lobes, gyri.
_DISPLACEMENTS_MM = ((48.0, 3.5), (22.0, 1.4), (12.0, 0.5))
_ROTATION_DEGREES = 4.0
_AXIS_SCALE, _AXIS_SCALE_LIMIT, _GLOBAL_SCALE = 0.045, 0.1, 0.03
_SHEAR = 0.02
_SHIFT_MM = 2.0
_SLICE_JITTER_MM = 2.0
_VENTRICLES_MM = (-1.5, 4.5)
_CONTRAST_MIX = (0.3, 0.8)
_GREY, _WHITE, _CSF = (0.60, 0.03), (0.86, 0.02), (0.22, 0.05)
_TEXTURE, _TEXTURE_KNOTS_MM = 0.02, 5.0
_BIAS, _BIAS_KNOTS_MM = 0.07, 70.0
_NOISE = (0.008, 0.02)
_COVER_THRESHOLD = 0.5
_CLIP = 3.0


@dataclasses.dataclass(frozen=True)
class Subject:
    """A subject's slices before they become images.

    Attributes:
        signal: noiseless intensity, float32, about 0.86 in white matter, 0 outside the brain.
        brain: the foreground.
        white: white-matter probability in [0, 1], 0 outside the brain.
        noise: real and imaginary part of the scanner's noise, on the scale of `signal`.
        mean: mean of the noisy intensity inside the brain, over all slices.
        std: standard deviation of the same.
    """

    signal: Float[np.ndarray, "20 s s"]
    brain: Bool[np.ndarray, "20 s s"]
    white: Float[np.ndarray, "20 s s"]
    noise: Float[np.ndarray, "2 20 s s"]
    mean: float
    std: float


def grid_axes_mm(
    image_size: int,
) -> tuple[Float[np.ndarray, "20"], Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Heights of the slices, y of the rows and x of the columns (pixel centres), in mm."""
    columns = (np.arange(image_size) - (image_size - 1) / 2) * spacing_mm(image_size)
    heights = np.linspace(FIRST_SLICE_VOXEL, LAST_SLICE_VOXEL, NUM_SLICES) - CENTRE_VOXEL[2]
    return heights, columns[::-1].copy(), columns


def make_subject(seed: int, split: int, number: int, image_size: int) -> Subject:
    """Make the subject of a key.

    The same key gives the same anatomy and contrast at every image size.

    Args:
        seed: seed of the data set, not negative.
        split: number of the split.
        number: number of the subject in its split.
        image_size: pixels per side.

    Raises:
        UserError: if the template's files are missing.
    """
    template = load_template(image_size)
    axes = grid_axes_mm(image_size)
    points = _anatomical_points(keyed_generator(seed, split, number, Purpose.SHAPE), axes, template)
    cover = _sample(template.cover, points)
    brain = cover > _COVER_THRESHOLD
    inside = points[:, brain]
    t1, grey, white = (
        _sample(volume, inside) for volume in (template.t1, template.grey, template.white)
    )

    generator = keyed_generator(seed, split, number, Purpose.CONTRAST)
    intensity = _mix_contrast(generator, t1, grey, white, cover[brain])
    texture = SplineField.draw(generator, _TEXTURE_KNOTS_MM).at(axes)[brain]
    bias = SplineField.draw(generator, _BIAS_KNOTS_MM).at(axes)[brain]
    intensity *= (1 + _TEXTURE * texture) * np.exp(_BIAS * bias)

    generator = keyed_generator(seed, split, number, Purpose.NOISE)
    noise_std = generator.uniform(*_NOISE)
    noise = generator.standard_normal((2, *brain.shape), dtype=np.float32)
    noise *= np.float32(noise_std)

    signal = _scatter(brain, intensity)
    noisy = _add_noise(signal, noise)[brain]
    mean, std = float(noisy.mean(dtype=np.float64)), float(noisy.std(dtype=np.float64))
    return Subject(signal, brain, _scatter(brain, white), noise, mean, std)


def render(
    subject: Subject, signal: Float[np.ndarray, "20 s s"] | None = None
) -> UInt8[np.ndarray, "20 s s"]:
    """The subject's images.

    Noise is added, the intensity standardised with the mean and s.d. of the subject WITHOUT
    anomalies, clipped to +-3 s.d. and mapped to 1..255; a value v stands for v / 255 in [0, 1].
    The background, and nothing else, is 0.

    Args:
        subject: whose slices.
        signal: the subject's signal with anomalies drawn in; its own normal signal if absent.
    """
    noisy = _add_noise(subject.signal if signal is None else signal, subject.noise)
    standardised = np.clip((noisy - subject.mean) / subject.std, -_CLIP, _CLIP)
    values = np.rint((standardised + _CLIP) * (255 / (2 * _CLIP)))
    return np.where(subject.brain, np.maximum(values, 1), 0).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """A map from a subject to the template, but for the ventricles; lengths in mm."""

    matrix: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]
    displacements: tuple[tuple[float, SplineField], ...]
    """Standard deviation and field, in turn for x, y, z."""

    def template_points(
        self, axes: tuple[np.ndarray, np.ndarray, np.ndarray], template: Template
    ) -> Float[np.ndarray, "3 z y x"]:
        """Where the points of a grid lie in the cropped template, in voxels (x, y, z)."""
        heights, rows, columns = axes
        grid = np.meshgrid(heights, rows, columns, indexing="ij", sparse=True)[::-1]
        points = np.empty((3, len(heights), len(rows), len(columns)), np.float32)
        for axis in range(3):
            moved = sum(self.matrix[axis, other] * grid[other] for other in range(3))
            points[axis] = moved + (self.shift[axis] + CENTRE_VOXEL[axis] - template.origin[axis])
            for deviation, field in self.displacements[axis::3]:
                points[axis] += np.float32(deviation) * field.at(axes)
        return points


def _anatomical_points(
    generator: np.random.Generator,
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    template: Template,
) -> Float[np.ndarray, "3 20 s s"]:
    """Where in the cropped template, in voxels (x, y, z), each pixel of the subject lies."""
    matrix, shift = _draw_affine(generator)
    shift[2] += generator.uniform(-_SLICE_JITTER_MM, _SLICE_JITTER_MM)
    ventricles = generator.uniform(*_VENTRICLES_MM)
    displacements = tuple(
        (deviation, SplineField.draw(generator, knots))
        for knots, deviation in _DISPLACEMENTS_MM
        for _ in range(3)
    )
    points = _fit_field_of_view(_Shape(matrix, shift, displacements), template).template_points(
        axes, template
    )
    # Sampling nearer to the ventricles than the point lies shows them wider.
    coarse = points / template.coarse_step
    pull = np.stack([_sample(component, coarse) for component in template.ventricle_pull])
    return points + np.float32(ventricles) * pull


def _fit_field_of_view(shape: _Shape, template: Template) -> _Shape:
    """Shrink a head that is cut off by the field of view, along the axis along which it is.

    The template's brain is 180 of the 200 mm long, so one head in three would be cut. The border
    is looked at in the same places for every image size.
    """
    heights, lines, _ = grid_axes_mm(64)
    border = np.array([-98.0, 98.0])
    for axis, axes in ((0, (heights, lines, border)), (1, (heights, border, lines))):
        for _ in range(20):
            cover = _sample(template.cover, shape.template_points(axes, template))
            if not (cover > _COVER_THRESHOLD / 2).any():
                break
            matrix = shape.matrix.copy()
            matrix[:, axis] *= 1.01
            shape = dataclasses.replace(shape, matrix=matrix)
    return shape


def _draw_affine(
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """A random rotation, scale and shear as a matrix, and a shift in mm."""
    angles = np.deg2rad(generator.normal(0, _ROTATION_DEGREES, 3))
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    axis_scale = generator.normal(0, _AXIS_SCALE, 3)
    axis_scale = np.clip(axis_scale, -_AXIS_SCALE_LIMIT, _AXIS_SCALE_LIMIT)
    scale = np.diag(np.exp(axis_scale + generator.normal(0, _GLOBAL_SCALE)))
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = generator.normal(0, _SHEAR, 3)
    return rotation @ shear @ scale, generator.normal(0, _SHIFT_MM, 3)


def _mix_contrast(
    generator: np.random.Generator,
    t1: Float[np.ndarray, " n"],
    grey: Float[np.ndarray, " n"],
    white: Float[np.ndarray, " n"],
    cover: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Blend the template's T1 with intensities drawn per tissue: another scanner's contrast."""
    mix = generator.uniform(*_CONTRAST_MIX)
    grey_level, white_level, csf_level = (
        generator.normal(*level) for level in (_GREY, _WHITE, _CSF)
    )
    csf = np.clip(cover - grey - white, 0, 1)
    tissues = grey_level * grey + white_level * white + csf_level * csf
    return ((1 - mix) * t1 + mix * tissues).astype(np.float32)


def _add_noise(
    signal: Float[np.ndarray, "20 s s"], noise: Float[np.ndarray, "2 20 s s"]
) -> Float[np.ndarray, "20 s s"]:
    """Rician noise: the magnitude of a complex signal whose two parts are noisy."""
    return np.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2)


def _sample(
    volume: Float[np.ndarray, "x y z"], points: Float[np.ndarray, "3 ..."]
) -> Float[np.ndarray, "..."]:
    """Linear interpolation of `volume` at `points` in voxels; 0 outside it."""
    return ndimage.map_coordinates(volume, points, order=1, output=np.float32)


def _scatter(
    brain: Bool[np.ndarray, "20 s s"], values: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "20 s s"]:
    """An array that holds `values` where `brain` is set and 0 elsewhere."""
    full = np.zeros(brain.shape, np.float32)
    full[brain] = values
    return full
