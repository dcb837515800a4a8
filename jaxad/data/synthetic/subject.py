"""One normal subject: a keyed random deformation and contrast of the template.

Lengths are in mm from the centre of the field of view, x to the right, y to the front, z up.
Arrays of slices are indexed (slice, row, column), the first row at the front of the head.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxad.data.synthetic.fields import Purpose, SplineField, SubjectKey
from jaxad.data.synthetic.geometry import plane_axes_mm
from jaxad.data.synthetic.template import (
    CENTRE_VOXEL,
    FIRST_SLICE_VOXEL,
    LAST_SLICE_VOXEL,
    LEAST_COVER,
    NUM_SLICES,
    Template,
    load_template,
)

# --- Shape. Numbers are standard deviations, pairs of bounds are (lowest, highest).

# Knot spacing and standard deviation of the displacement fields, in mm: head shape, lobes, gyri.
_DISPLACEMENTS_MM = ((48.0, 3.5), (22.0, 1.4), (12.0, 0.5))
_ROTATION_DEGREES = 4.0
# Logarithms of scales.
_AXIS_SCALE, _AXIS_SCALE_LIMIT, _GLOBAL_SCALE = 0.045, 0.1, 0.03
_SHEAR = 0.02
_SHIFT_MM = 2.0
_SLICE_JITTER_MM = 2.0  # bound of a uniform shift along z
_VENTRICLES_MM = (-1.5, 4.5)  # bounds of the widening of the ventricles

# --- Intensity, on a scale on which the brightest tissue of the template is 1.

_CONTRAST_MIX = (0.3, 0.8)  # bounds of the share of the drawn tissue contrast
_GREY, _WHITE, _CSF = (0.60, 0.03), (0.86, 0.02), (0.22, 0.05)  # mean, standard deviation
_TEXTURE, _TEXTURE_KNOTS_MM = 0.02, 5.0
_BIAS, _BIAS_KNOTS_MM = 0.07, 70.0  # of the logarithm of the scanner's bias field
_NOISE = (0.008, 0.02)  # bounds of the standard deviation of the noise
# Share of a voxel that must be brain; the field of view has a border of half of it.
_COVER_THRESHOLD = 2 * LEAST_COVER
_CLIP = 3.0  # standard deviations


@dataclasses.dataclass(frozen=True)
class Subject:
    """A subject's slices before they become images."""

    #: noiseless intensity, float32, about 0.86 in white matter, 0 outside the brain
    signal: Float[np.ndarray, "20 s s"]
    brain: Bool[np.ndarray, "20 s s"]  # foreground
    white: Float[np.ndarray, "20 s s"]  # white-matter probability in [0, 1], 0 outside the brain
    #: real and imaginary part of the scanner's noise, on the scale of `signal`
    noise: Float[np.ndarray, "2 20 s s"]
    mean: float  # mean of the noisy intensity in the brain, over all slices
    std: float  # standard deviation of the noisy intensity in the brain


def grid_axes_mm(
    image_size: int,
) -> tuple[Float[np.ndarray, "20"], Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Returns z of the slices, y of the rows and x of the columns (pixel centres), in mm."""
    heights = np.linspace(FIRST_SLICE_VOXEL, LAST_SLICE_VOXEL, NUM_SLICES) - CENTRE_VOXEL[2]
    return (heights, *plane_axes_mm((image_size, image_size)))


def make_subject(key: SubjectKey, image_size: int) -> Subject:
    """Makes a subject with slices of `image_size` pixels per side.

    The same key gives the same anatomy and contrast at every image size.
    """
    template = load_template(image_size)
    axes = grid_axes_mm(image_size)
    points = _anatomical_points(key.generator(Purpose.SHAPE), axes, template)
    inside, tissues = template.tissues.sample(points)
    is_brain = tissues[:, 0] > _COVER_THRESHOLD
    brain = np.zeros(tuple(map(len, axes)), bool)
    brain.reshape(-1)[inside[is_brain]] = True
    cover, t1, grey, white = np.ascontiguousarray(tissues[is_brain].T)

    generator = key.generator(Purpose.CONTRAST)
    intensity = _mix_contrast(generator, t1, grey, white, cover)
    texture = SplineField.draw(generator, _TEXTURE_KNOTS_MM).at(axes)[brain]
    bias = SplineField.draw(generator, _BIAS_KNOTS_MM).at(axes)[brain]
    intensity *= (1 + _TEXTURE * texture) * np.exp(_BIAS * bias)

    generator = key.generator(Purpose.NOISE)
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
    """Renders a subject's images, from its normal signal or from a signal with anomalies.

    Noise is added. The intensity is standardised with the mean and standard deviation of the
    subject WITHOUT anomalies, clipped to +-3 standard deviations and mapped to 1..255; v stands for
    v / 255. The background is 0.
    """
    noisy = _add_noise(subject.signal if signal is None else signal, subject.noise)
    standardised = np.clip((noisy - subject.mean) / subject.std, -_CLIP, _CLIP)
    values = np.rint((standardised + _CLIP) * (255 / (2 * _CLIP)))
    return np.where(subject.brain, np.maximum(values, 1), 0).astype(np.uint8)


_Axes = tuple[Float[np.ndarray, " z"], Float[np.ndarray, " y"], Float[np.ndarray, " x"]]


@dataclasses.dataclass(frozen=True)
class _Shape:
    """A map from a subject's space to the template's, without the ventricles."""

    matrix: Float[np.ndarray, "3 3"]  # linear part
    shift: Float[np.ndarray, "3"]  # translation: voxel of the cropped template at the centre
    #: standard deviation in mm and field, in turn for x, y and z
    displacements: tuple[tuple[float, SplineField], ...]

    def displace(self, axes: _Axes) -> Float[np.ndarray, "3 z y x"]:
        """Returns the displacements, in mm, of the points of a grid."""
        total = np.zeros((3, *map(len, axes)), np.float32)
        for index, (deviation, field) in enumerate(self.displacements):
            displacement = field.at(axes)
            displacement *= np.float32(deviation)
            total[index % 3] += displacement
        return total

    def template_points(
        self, axes: _Axes, displacement: Float[np.ndarray, "3 z y x"]
    ) -> Float[np.ndarray, "3 n"]:
        """Maps the displaced points of a grid to voxels (x, y, z) of the cropped template."""
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        points = np.empty_like(displacement)
        for target, moved, row, shift in zip(
            points, displacement, self.matrix, self.shift, strict=True
        ):
            plane = (row[2] * z + row[1] * y + shift).astype(np.float32)
            np.add(plane, (row[0] * x).astype(np.float32), out=target)
            target += moved
        return points.reshape(3, -1)


def _anatomical_points(
    generator: np.random.Generator, axes: _Axes, template: Template
) -> Float[np.ndarray, "3 n"]:
    """Maps each pixel of a random subject to voxels (x, y, z) of the cropped template."""
    matrix, shift = _draw_affine(generator)
    shift[2] += generator.uniform(-_SLICE_JITTER_MM, _SLICE_JITTER_MM)
    ventricles = generator.uniform(*_VENTRICLES_MM)
    displacements = tuple(
        (deviation, SplineField.draw(generator, knots))
        for knots, deviation in _DISPLACEMENTS_MM
        for _ in range(3)
    )
    shift += np.subtract(CENTRE_VOXEL, template.origin)
    shape = _fit_field_of_view(_Shape(matrix, shift, displacements), template)
    points = shape.template_points(axes, shape.displace(axes))
    # Sampling closer to the ventricles than the point is makes them wider.
    inside, pull = template.ventricle_pull.sample(points / np.float32(template.coarse_step))
    for coordinate, direction in zip(points, pull.T[:3], strict=True):
        coordinate[inside] += np.float32(ventricles) * direction
    return points


def _fit_field_of_view(shape: _Shape, template: Template) -> _Shape:
    """Shrinks a head that the field of view cuts off, along the axis of the cut.

    The template's brain is 180 mm long, so that the field of view of 200 mm would cut off one head
    in three. The border is sampled at the same points for every image size.
    """
    heights, lines, _ = grid_axes_mm(64)
    border = np.array([-98.0, 98.0])
    for axis, axes in ((0, (heights, lines, border)), (1, (heights, border, lines))):
        displacement = shape.displace(axes)
        for _ in range(20):
            _, tissues = template.tissues.sample(shape.template_points(axes, displacement))
            if not (tissues[:, 0] > LEAST_COVER).any():
                break
            matrix = shape.matrix.copy()
            matrix[:, axis] *= 1.01
            shape = dataclasses.replace(shape, matrix=matrix)
    return shape


def _draw_affine(
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Draws a rotation, scale and shear as one matrix, and a shift in mm."""
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
    """Blends the template's T1 with one random intensity per tissue: another scanner's contrast."""
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
    """Adds Rician noise: the magnitude of a complex signal with noise in both parts."""
    return np.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2)


def _scatter(
    brain: Bool[np.ndarray, "20 s s"], values: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "20 s s"]:
    """Returns an array that holds `values` in the brain and 0 elsewhere."""
    full = np.zeros(brain.shape, np.float32)
    full[brain] = values
    return full
