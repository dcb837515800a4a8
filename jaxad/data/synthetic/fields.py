"""Keyed randomness and smooth random fields, the raw material of a subject."""

import dataclasses
import enum

import numpy as np
from jaxtyping import Float

from jaxad.data.synthetic.template import FIELD_OF_VIEW_MM

# Standard deviation of a 3D cubic B-spline field whose coefficients have s.d. 1: the mean square
# of the 1D basis sums to 151/315 per axis.
_SPLINE_GAIN = (151 / 315) ** 1.5


class Purpose(enum.IntEnum):
    """What a stream of random numbers is for; the values are part of the data's identity."""

    SHAPE = 0
    CONTRAST = 1
    NOISE = 2
    OBJECT = 3
    LESION = 4
    PLAN = 5


def keyed_generator(
    seed: int, split: int, number: int, purpose: Purpose, item: int = 0
) -> np.random.Generator:
    """The random generator of one purpose of one subject.

    Streams of different keys are independent, and a stream depends on its own key only: neither
    on the order in which subjects are made nor on how many there are.

    Args:
        seed: seed of the data set, not negative.
        split: number of the split.
        number: number of the subject in its split.
        purpose: what is drawn.
        item: which of several things of that purpose, such as a slice index.
    """
    key = (split, number, int(purpose), item)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclasses.dataclass(frozen=True)
class SplineField:
    """A smooth random field of mean 0 and standard deviation 1 over the field of view.

    A cubic B-spline with independent normal coefficients. It is a function of place: finer or
    smaller grids sample the same field.

    Attributes:
        coefficients: one per knot of the cube of the field of view and a margin.
        knots_mm: knot spacing in mm; the field's features are about this wide.
    """

    coefficients: Float[np.ndarray, "k k k"]
    knots_mm: float

    @classmethod
    def draw(cls, generator: np.random.Generator, knots_mm: float) -> "SplineField":
        """Draw the coefficients for a knot spacing in mm."""
        count = 2 * _knots_to_border(knots_mm) + 1
        return cls(generator.standard_normal((count,) * 3, dtype=np.float32), knots_mm)

    def at(
        self,
        axes_mm: tuple[Float[np.ndarray, " z"], Float[np.ndarray, " y"], Float[np.ndarray, " x"]],
    ) -> Float[np.ndarray, "z y x"]:
        """The field, float32, on the grid of these coordinates in mm, each within +-100.

        It is evaluated axis by axis with four taps each: elementwise sums only, so that its bytes
        do not depend on a BLAS library's threads.
        """
        field = self.coefficients
        for dimension, axis in enumerate(axes_mm):
            knot = np.floor(axis / self.knots_mm).astype(int)
            weights = _cubic_weights(axis / self.knots_mm - knot)
            first = knot - 1 + _knots_to_border(self.knots_mm)
            broadcast = tuple(-1 if other == dimension else 1 for other in range(3))
            field = sum(
                np.take(field, first + tap, axis=dimension) * weights[tap].reshape(broadcast)
                for tap in range(4)
            )
        return field / np.float32(_SPLINE_GAIN)


def _knots_to_border(knots_mm: float) -> int:
    """Knots from the centre to beyond the border of the field of view, on either side."""
    return int(np.ceil(FIELD_OF_VIEW_MM / 2 / knots_mm)) + 2


def _cubic_weights(t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "4 n"]:
    """The four cubic B-spline weights at the fractions t in [0, 1) between two knots."""
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return (np.stack(weights) / 6).astype(np.float32)
