"""What a natural object looks like, whatever it is drawn into: its outline, photograph and blend.

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
    """An ellipse or superellipse around a centre that is still to be chosen.

    Attributes:
        half: the two half axes in mm.
        angle: of the first axis.
        power: 2 for an ellipse; the higher, the closer to a rectangle.
    """

    half: Float[np.ndarray, "2"]
    angle: float
    power: float

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "Outline":
        """Draw one; half of them are ellipses."""
        half = generator.uniform(*OBJECT_DIAMETER_MM, size=2) / 2
        angle = generator.uniform(0, np.pi)
        power = 2.0 if generator.uniform() < 0.5 else generator.uniform(2.5, 5.0)
        return cls(half, angle, power)

    def points(self) -> Float[np.ndarray, "2 m"]:
        """Points (x, y) in mm on and in the ellipse of these axes, around 0."""
        return ellipse_outline(self.half, self.angle)

    def weight(
        self, centre: Float[np.ndarray, "2"], shape: tuple[int, int]
    ) -> Float[np.ndarray, "h w"]:
        """How much of each pixel is the object's: 1 inside, 0 outside, .5 on the outline."""
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
        """A piece of a photograph at the pixels of the square around the object, 0 elsewhere."""
        reach = int(np.ceil(self.half.max() / spacing_mm(min(shape)))) + 1
        piece = draw_patch(generator, 2 * reach + 1)
        row, column = nearest_pixel(centre, shape)
        padded = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), np.float32)
        padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1] = piece
        return padded[reach:-reach, reach:-reach]


def draw_alpha(generator: np.random.Generator) -> float:
    """How much of the image an object hides where its weight is 1."""
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
    """Blend a photograph into an image, at a level and a contrast that fit the place.

    Args:
        generator: source of the level and the contrast, which are the same in all channels.
        image: float32, not changed.
        foreground: where the object may show.
        global_means: mean of each channel over the foreground at large: the object's level lies
            between this and the mean of what it hides.
        alpha: see `draw_alpha`.
        weight: see `Outline.weight`; more than .5 on some pixel of the foreground.
        patch: grey levels, on any scale.

    Returns:
        The image with the object, and the object's opacity in [0, 1].
    """
    region = (weight > 0.5) & foreground
    patch = (patch - patch[region].mean()) / max(float(patch[region].std()), 1e-3)
    patch = np.clip(patch, -_PATCH_LIMIT, _PATCH_LIMIT)
    # Faint objects are more frequent than glaring ones: the square favours the lower end.
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
