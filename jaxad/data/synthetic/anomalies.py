"""Anomalies drawn into a subject's signal: natural objects and lesions.

Both use the intensity scale of `Subject.signal`, before noise and standardisation. Sizes are in mm
and do not depend on the slice, so that the position of a slice predicts nothing about an anomaly.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from jaxad.data.synthetic.fields import Purpose, SplineField, SubjectKey
from jaxad.data.synthetic.geometry import (
    WELL_INSIDE,
    ellipse_outline,
    inside_share,
    local_axes,
    nearest_pixel,
)
from jaxad.data.synthetic.objects import Outline, blend, draw_alpha
from jaxad.data.synthetic.plan import Run
from jaxad.data.synthetic.subject import Subject, grid_axes_mm
from jaxad.data.synthetic.template import spacing_mm

LESION_RADIUS_MM = (11.0, 22.0)
LESION_AREA_SHARE = 0.006
"""A lesion covers more than this share of the pixels of each of its slices."""

_HYPO_SHARE = 0.6
_HYPO, _HYPER = (0.35, 0.65), (1.22, 1.4)
_RIM_SHARE, _RIM, _RIM_WIDTH_MM = 0.5, (1.05, 1.25), 2.2
# Knot spacing in mm and relative amplitude of the variation inside a lesion.
_MOTTLE = (8.0, 0.08)
_OEDEMA, _OEDEMA_MM = (0.72, 0.88), (5.0, 12.0)
_BORDER_MM = 4.0
# Knot spacing in mm and relative amplitude of the border's roughness.
_ROUGHNESS = ((20.0, 0.14), (9.0, 0.10))
_SMALLEST_SECTION_MM = 9.5

_CANDIDATES = 256
_SEARCH_MM = (75.0, 95.0)
_IN_WHITE_MATTER = 0.7


def draw_objects(
    subject: Subject, key: SubjectKey, slices: Iterable[int]
) -> tuple[Float[np.ndarray, "20 s s"], Bool[np.ndarray, "20 s s"]]:
    """Returns the signal with a piece of a photograph in each of `slices`, and a mask of them.

    The object of a slice depends only on the key and the index of the slice. The mask has the
    pixels where an object outweighs the brain.
    """
    signal, mask = subject.signal.copy(), np.zeros_like(subject.brain)
    global_mean = float(subject.signal[subject.brain].mean())
    for index in slices:
        generator = key.generator(Purpose.OBJECT, index)
        brain = subject.brain[index]
        alpha = draw_alpha(generator)
        weight, patch = _shaped_patch(generator, brain)
        image = subject.signal[index][..., None]
        blended, opacity = blend(generator, image, brain, [global_mean], alpha, weight, patch)
        signal[index], mask[index] = blended[..., 0], opacity > 0.5
    return signal, mask


def _shaped_patch(
    generator: np.random.Generator, brain: Bool[np.ndarray, "s s"]
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """Draws the weight of a random (super)ellipse in the brain, and a photograph inside it."""
    outline = Outline.draw(generator)
    candidates = _candidates(generator)
    centre = _first_good(candidates, inside_share(brain, candidates, outline.points()))
    return outline.weight(centre, brain.shape), outline.photograph(generator, centre, brain.shape)


@dataclasses.dataclass(frozen=True)
class _Lesion:
    """Properties of one lesion; lengths in mm, factors multiply the signal."""

    radius: float
    elongation: float
    angle: float
    factor: float
    rim: float | None
    oedema: float
    oedema_width: float


def draw_lesions(
    subject: Subject, key: SubjectKey, runs: Iterable[Run]
) -> tuple[Float[np.ndarray, "20 s s"], Bool[np.ndarray, "20 s s"]]:
    """Returns the signal with a lesion drawn into each run of slices, and a mask of the lesions.

    The mask has the rims of the lesions, but not the oedema.
    """
    signal, mask = subject.signal.copy(), np.zeros_like(subject.brain)
    for item, run in enumerate(runs):
        generator = key.generator(Purpose.LESION, item)
        lesion = _draw_lesion(generator)
        slices = slice(run.slices.start, run.slices.stop)
        level = _lesion_level(generator, subject, lesion, run)
        heights, rows, columns = grid_axes_mm(subject.brain.shape[-1])
        mottle = SplineField.draw(generator, _MOTTLE[0]).at((heights[slices], rows, columns))
        signal[slices] = _apply_lesion(signal[slices], subject, slices, lesion, level, mottle)
        mask[slices] = (level > 0) & subject.brain[slices]
    return signal, mask


def _draw_lesion(generator: np.random.Generator) -> _Lesion:
    """Draws a lesion: dark, perhaps with a bright rim, or bright."""
    hypo = generator.uniform() < _HYPO_SHARE
    rim = generator.uniform(*_RIM) if generator.uniform() < _RIM_SHARE else None
    return _Lesion(
        radius=generator.uniform(*LESION_RADIUS_MM),
        elongation=np.sqrt(generator.uniform(1.0, 1.5)),
        angle=generator.uniform(0, np.pi),
        factor=generator.uniform(*(_HYPO if hypo else _HYPER)),
        rim=rim if hypo else None,
        oedema=generator.uniform(*_OEDEMA),
        oedema_width=generator.uniform(*_OEDEMA_MM),
    )


def _lesion_level(
    generator: np.random.Generator, subject: Subject, lesion: _Lesion, run: Run
) -> Float[np.ndarray, "n s s"]:
    """Returns the depth below the lesion's rough border in mm, positive inside, for its slices.

    The sections are those of an ellipsoid as high as the run, but each covers more than
    `LESION_AREA_SHARE` of its slice.
    """
    size = subject.brain.shape[-1]
    heights, rows, columns = grid_axes_mm(size)
    slices = slice(run.slices.start, run.slices.stop)
    brain, white = subject.brain[slices], subject.white[slices]

    outline = ellipse_outline(
        lesion.radius * np.array([lesion.elongation, 1 / lesion.elongation]), lesion.angle
    )
    candidates = _candidates(generator)
    row, column = nearest_pixel(candidates, (size, size))
    in_white = white[:, row, column].mean(axis=0)
    inside = inside_share(np.all(brain, axis=0), candidates, outline)
    fit = np.minimum(in_white / _IN_WHITE_MATTER, inside / WELL_INSIDE) * WELL_INSIDE
    centre = _first_good(candidates, fit)

    offset = (np.arange(run.start, run.stop) - (run.start + run.stop - 1) / 2) * 2
    offset = offset[[index - run.start for index in run.slices]] / (run.stop - run.start + 1)
    section = np.maximum(lesion.radius * np.sqrt(1 - offset**2), _SMALLEST_SECTION_MM)
    rough = 1 + sum(
        amplitude * SplineField.draw(generator, knots).at((heights[slices], rows, columns))
        for knots, amplitude in _ROUGHNESS
    )
    along, across = local_axes(rows, columns, centre, lesion.angle)
    distance = np.hypot(along / lesion.elongation, across * lesion.elongation)
    while True:
        level = section[:, None, None] * rough - distance
        area = ((level > 0) & brain).mean(axis=(1, 2))
        if (area > LESION_AREA_SHARE).all():
            return level
        # A section that the brain's border or a notch cuts grows until it is large enough. This
        # ends: a section can grow to the whole brain, 15 % of any slice or more.
        section = np.where(area > LESION_AREA_SHARE, section, section * 1.05)


def _apply_lesion(
    signal: Float[np.ndarray, "n s s"],
    subject: Subject,
    slices: slice,
    lesion: _Lesion,
    level: Float[np.ndarray, "n s s"],
    mottle: Float[np.ndarray, "n s s"],
) -> Float[np.ndarray, "n s s"]:
    """Returns the signal of the lesion's slices with the lesion.

    `level` is the depth below the lesion's border in mm, `mottle` the variation inside it, a smooth
    field of standard deviation 1.
    """
    brain = subject.brain[slices]
    core = np.clip(0.5 + level / _BORDER_MM, 0, 1)
    factor = lesion.factor * (1 + _MOTTLE[1] * mottle)
    if lesion.rim is not None:
        ring = np.exp(-(((level - _RIM_WIDTH_MM) / _RIM_WIDTH_MM) ** 2))
        # A rim is thin or missing in places.
        factor += (lesion.rim - factor) * ring * np.clip(0.7 + 0.3 * mottle, 0, 1)
    # Oedema spreads through white matter rather than cortex.
    falling = np.clip(1 + level / lesion.oedema_width, 0, 1) * (0.3 + 0.7 * subject.white[slices])
    around = 1 - (1 - lesion.oedema) * falling
    # Inside a lesion most of the anatomy is replaced by an intensity between that of the
    # surroundings and that of the whole brain.
    spread = 5.0 / spacing_mm(signal.shape[-1])
    smooth = ndimage.gaussian_filter(signal, (0, spread, spread))
    smooth /= np.maximum(
        ndimage.gaussian_filter(brain.astype(np.float32), (0, spread, spread)), 0.1
    )
    tissue = signal + 0.8 * core * ((smooth + subject.mean) / 2 - signal)
    return (brain * tissue * (core * factor + (1 - core) * around)).astype(np.float32)


def _candidates(generator: np.random.Generator) -> Float[np.ndarray, "2 n"]:
    """Draws points (x, y) in mm in the part of the field of view that may be brain."""
    limits = np.array(_SEARCH_MM)[:, None]
    return generator.uniform(-limits, limits, size=(2, _CANDIDATES))


def _first_good(
    candidates: Float[np.ndarray, "2 n"], fit: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "2"]:
    """Returns the first candidate that fits well enough, or the one that fits best."""
    good = fit >= WELL_INSIDE
    return candidates[:, int(np.argmax(good) if good.any() else np.argmax(fit))]
