"""Keyed random generators and smooth random fields."""

import dataclasses
import enum

import numpy as np
from jaxtyping import Float, Int

from jaxad.data.synthetic.template import FIELD_OF_VIEW_MM

# Standard deviation of a 3D cubic B-spline field whose coefficients have s.d. 1: the mean square
# of the 1D basis sums to 151/315 per axis.
_SPLINE_GAIN = (151 / 315) ** 1.5


class Purpose(enum.IntEnum):
    """Uses of random numbers; changing a value changes the data."""

    SHAPE = 0
    CONTRAST = 1
    NOISE = 2
    OBJECT = 3
    LESION = 4
    PLAN = 5


@dataclasses.dataclass(frozen=True)
class SubjectKey:
    """Identifies a subject; everything random about it follows from its key."""

    seed: int  # seed of the data set, not negative
    split: int  # number of the split
    number: int  # number of the subject in its split

    def generator(self, purpose: Purpose, item: int = 0) -> np.random.Generator:
        """Returns the random generator of a purpose, or of one of its items, such as slices.

        Generators of different keys, purposes and items are independent: none depends on the order
        or the number of subjects.
        """
        key = (self.split, self.number, int(purpose), item)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


@dataclasses.dataclass(frozen=True)
class SplineField:
    """A smooth random field of mean 0 and standard deviation 1 over the field of view.

    The field is a cubic B-spline with independent normal coefficients. It is a function of the
    position in mm: grids of any spacing sample the same field.
    """

    #: one for each knot of a cube that covers the field of view with a margin
    coefficients: Float[np.ndarray, "k k k"]
    knots_mm: float  # knot spacing in mm, about the width of the field's features

    @classmethod
    def draw(cls, generator: np.random.Generator, knots_mm: float) -> "SplineField":
        """Draws the coefficients for a knot spacing in mm."""
        count = 2 * _knots_to_border(knots_mm) + 1
        return cls(generator.standard_normal((count,) * 3, dtype=np.float32), knots_mm)

    def at(
        self,
        axes_mm: tuple[Float[np.ndarray, " z"], Float[np.ndarray, " y"], Float[np.ndarray, " x"]],
    ) -> Float[np.ndarray, "z y x"]:
        """Evaluates the field, float32, on a grid with coordinates in mm, within +-100.

        It uses elementwise sums over four taps per axis, so that the result does not depend on the
        threads of a BLAS library.
        """
        taps = [self._taps(axis) for axis in axes_mm]
        # Only the knots that the grid's heights need.
        knots = np.arange(taps[0][0].min(), taps[0][0].max() + 4)
        field = np.take(self.coefficients, knots, axis=0)
        taps[0] = taps[0][0] - knots[0], taps[0][1] / np.float32(_SPLINE_GAIN)
        # The last step has the most points; it copies whole planes.
        for dimension in (2, 1, 0):
            first, weights = taps[dimension]
            weights = weights.reshape(4, *(-1 if axis == dimension else 1 for axis in range(3)))
            total = np.take(field, first, axis=dimension)
            total *= weights[0]
            for tap in range(1, 4):
                term = np.take(field, first + tap, axis=dimension)
                term *= weights[tap]
                total += term
            field = total
        return field

    def _taps(
        self, axis_mm: Float[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "4 n"]]:
        """Returns the first of the four knots around each coordinate, and the knots' weights."""
        knot = np.floor(axis_mm / self.knots_mm).astype(int)
        weights = _cubic_weights(axis_mm / self.knots_mm - knot)
        return knot - 1 + _knots_to_border(self.knots_mm), weights


def _knots_to_border(knots_mm: float) -> int:
    """Returns the number of knots from the centre to beyond the border of the field of view."""
    return int(np.ceil(FIELD_OF_VIEW_MM / 2 / knots_mm)) + 2


def _cubic_weights(t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "4 n"]:
    """Returns the four cubic B-spline weights at fractions t in [0, 1) between two knots."""
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return (np.stack(weights) / 6).astype(np.float32)
