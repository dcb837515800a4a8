"""Natural objects: outline, photograph and blend.

Lengths are in mm, for slices whose shorter side is a field of view of 200 mm.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxad.data.synthetic.geometry import ellipse_outline, local_axes, nearest_pixel, plane_axes_mm
from jaxad.data.synthetic.photographs import draw_patch
from jaxad.data.synthetic.template import spacing_mm

OBJECT_DIAMETER_MM = (34.0, 64.0)
OBJECT_FEATHER_MM = 4.0

_CONTRAST = (1.4, 2.4)
_ALPHA = (0.85, 1.0)
_PATCH_LIMIT = 2.0


@dataclasses.dataclass(frozen=True)
class Outline:
    """An ellipse or superellipse whose centre is chosen later."""

    half: Float[np.ndarray, "2"]  # half axes in mm
    angle: float  # direction of the first axis, radians
    power: float  # exponent: 2 for an ellipse, larger values approach a rectangle

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "Outline":
        """Draws an outline, with probability one half an ellipse."""
        half = generator.uniform(*OBJECT_DIAMETER_MM, size=2) / 2
        angle = generator.uniform(0, np.pi)
        power = 2.0 if generator.uniform() < 0.5 else generator.uniform(2.5, 5.0)
        return cls(half, angle, power)

    def points(self) -> Float[np.ndarray, "2 m"]:
        """Returns points (x, y) in mm on and inside the ellipse with these axes, around 0."""
        return ellipse_outline(self.half, self.angle)

    def weight(
        self, centre: Float[np.ndarray, "2"], shape: tuple[int, int]
    ) -> Float[np.ndarray, "h w"]:
        """Returns the object's share of each pixel: 1 inside, 0 outside, .5 on the outline."""
        rows, columns = plane_axes_mm(shape)
        along, across = local_axes(rows, columns, centre, self.angle)
        along, across = np.abs(along / self.half[0]), np.abs(across / self.half[1])
        level = (along**self.power + across**self.power) ** (1 / self.power)
        return np.clip(0.5 + (1 - level) * self.half.min() / OBJECT_FEATHER_MM, 0, 1)

    def photograph(
        self,
        generator: np.random.Generator,
        centre: Float[np.ndarray, "2"],
        shape: tuple[int, int],
    ) -> Float[np.ndarray, "h w"]:
        """Draws a piece of a photograph into the square around the object; 0 elsewhere."""
        reach = int(np.ceil(self.half.max() / spacing_mm(min(shape)))) + 1
        piece = draw_patch(generator, 2 * reach + 1)
        row, column = nearest_pixel(centre, shape)
        padded = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), np.float32)
        padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1] = piece
        return padded[reach:-reach, reach:-reach]


def draw_alpha(generator: np.random.Generator) -> float:
    """Draws the opacity of an object where its weight is 1."""
    return generator.uniform(*_ALPHA)


def blend(
    generator: np.random.Generator,
    image: Float[np.ndarray, "h w c"],
    foreground: Bool[np.ndarray, "h w"],
    global_means: Sequence[float],
    alpha: float,
    weight: Float[np.ndarray, "h w"],
    patch: Float[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "h w c"], Float[np.ndarray, "h w"]]:
    """Blends a photograph into an image, with a level and a contrast that fit the surroundings.

    Args:
        generator: source of the level and the contrast, which all channels share.
        image: float32; not changed.
        foreground: pixels that the object may cover.
        global_means: mean of each channel over the whole foreground; the object's level lies
            between it and the mean of the covered pixels.
        alpha: see `draw_alpha`.
        weight: see `Outline.weight`; above .5 on at least one pixel of the foreground.
        patch: grey levels on any scale.

    Returns:
        The image with the object, and the object's opacity in [0, 1].
    """
    region = (weight > 0.5) & foreground
    patch = (patch - patch[region].mean()) / max(float(patch[region].std()), 1e-3)
    patch = np.clip(patch, -_PATCH_LIMIT, _PATCH_LIMIT)
    # The square makes faint objects more frequent than conspicuous ones.
    faintest, strongest = _CONTRAST
    strength = faintest + (strongest - faintest) * generator.uniform() ** 2
    towards_global = generator.uniform(0, 1)
    opacity = alpha * weight * foreground
    blended = image.copy()
    for channel, global_mean in enumerate(global_means):
        plane = image[..., channel]
        local = plane[region]
        mean = local.mean() + towards_global * (global_mean - local.mean())
        value = np.maximum(mean + strength * local.std() * patch, 0)
        blended[..., channel] += (opacity * (value - plane)).astype(np.float32)
    return blended, opacity
