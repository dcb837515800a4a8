"""Decisions from normal images alone: conformal p-values and thresholds with a guarantee.

Slices of one patient are not exchangeable, patients are. Two guarantees follow for a new, normal
patient, each with calibration patients g = 1 ... n:

- **Patient.** The score of a patient is the largest of its slices' scores. p = (1 + the number of
  calibration patients that score at least as high) / (n + 1); P(p <= rate) <= rate (split-conformal
  inference; Vovk et al. 2005).
- **Image.** Of a slice drawn at random from a new patient, p = (1 + the sum over calibration
  patients of the share of their slices that score at least as high) / (n + 1); P(p <= rate) <= rate
  on average over such slices (hierarchical conformal prediction; Lee, Barber and Willett 2023,
  "Distribution-free inference with hierarchical data"). It weighs patients alike, however many
  slices they have.

Both hold on average over calibration sets; given one, the rate of false positives of patients
follows a Beta law (`realised_rate_law`). No rate below 1 / (n + 1) can be had.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from jaxad.errors import UserError

Scalars = Float[np.ndarray, " n"]
GroupNumbers = Int[np.ndarray, " n"]


def group_maxima(scores: Scalars, groups: GroupNumbers) -> Float[np.ndarray, " groups"]:
    """The largest score of each group, by its number (0, 1, ...)."""
    found = np.full(int(groups.max()) + 1, -np.inf)
    np.maximum.at(found, groups, scores)
    return found


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scores of normal images, by patient, and what follows from them.

    Attributes:
        scores: of the slices, ascending.
        weights: of each of them: 1 / (its patient's number of slices).
        patient_scores: ascending.

    Raises:
        UserError: no scores, or some that are not finite.
    """

    scores: Scalars
    weights: Scalars
    patient_scores: Float[np.ndarray, " groups"]

    @property
    def num_patients(self) -> int:
        return len(self.patient_scores)

    @property
    def smallest_rate(self) -> float:
        """The smallest rate of false positives that so many patients can support."""
        return round(1 / (self.num_patients + 1), 12)  # as p-values are

    def image_p_values(self, scores: Scalars) -> Scalars:
        """Of images by their scores.

        Raises:
            UserError: a score is not finite.
        """
        _check_finite(scores)
        above = np.concatenate([self._weight_from, [0.0]])
        return self._p_value(above[np.searchsorted(self.scores, scores, side="left")])

    def patient_p_values(
        self, patient_scores: Float[np.ndarray, " groups"]
    ) -> Float[np.ndarray, " groups"]:
        """Of patients by their scores, each the largest of its slices'.

        Raises:
            UserError: a score is not finite.
        """
        _check_finite(patient_scores)
        lower = np.searchsorted(self.patient_scores, patient_scores, side="left")
        return self._p_value((self.num_patients - lower).astype(np.float64))

    @property
    def _weight_from(self) -> Scalars:
        """The weight of each score and of those above it."""
        return np.cumsum(self.weights[::-1])[::-1]

    def _p_value(self, patients_as_high: Scalars) -> Scalars:
        # Rounded: sums of weights such as 1/3 miss by some bits, and p <= rate is to be exact.
        return np.round((1 + patients_as_high) / (self.num_patients + 1), 12)

    def _patients_called(self, rate: float) -> int:
        """Of the calibration patients and a new one, at most how many have p <= rate."""
        return int(np.sum(self._p_value(np.arange(self.num_patients, dtype=np.float64)) <= rate))

    def patient_threshold(self, rate: float) -> float:
        """A patient whose score is above it is called anomalous: exactly where p <= rate.

        Raises:
            UserError: the rate is below what the patients can support.
        """
        self._check(rate)
        return float(self.patient_scores[self.num_patients - self._patients_called(rate)])

    def image_threshold(self, rate: float) -> float:
        """An image whose score is above it is called anomalous: exactly where p <= rate.

        Raises:
            UserError: see `patient_threshold`.
        """
        self._check(rate)
        # From the highest score down: the first at which too much weight would lie above.
        too_much = np.flatnonzero(self._p_value(self._weight_from) > rate)
        # p of the lowest score is 1, and the rate is less.
        return float(self.scores[too_much[-1]])

    def realised_rate_law(self, rate: float) -> Any:
        """Of the patients' rate of false positives given the calibration set (no ties).

        The rate is one minus the distribution function at the k-th smallest of n scores: Beta.
        """
        self._check(rate)
        called = self._patients_called(rate)
        return stats.beta(called, self.num_patients + 1 - called)

    def _check(self, rate: float) -> None:
        if not 0 < rate <= 1 - 1e-9:
            raise UserError(f"a false-positive rate of {rate:g}: give one between 0 and 1.")
        if rate < round(self.smallest_rate, 12):
            raise UserError(
                f"a false-positive rate of {rate:g} cannot be had from {self.num_patients} normal "
                f"patients: the smallest is {self.smallest_rate:.3g}; ask for that, or calibrate "
                f"on at least {math.ceil(1 / rate) - 1} patients."
            )


def calibrate(scores: Scalars, groups: GroupNumbers) -> Calibration:
    """The calibration that scores of normal images give.

    Args:
        scores: of the images.
        groups: the number of each one's patient, 0, 1, ....

    Raises:
        UserError: there are none, or one is not finite.
    """
    if not len(scores):
        raise UserError("calibration: there are no normal images; give at least one patient.")
    _check_finite(scores)
    order = np.argsort(scores, kind="stable")
    sizes = np.bincount(groups)
    return Calibration(
        scores=np.asarray(scores, np.float64)[order],
        weights=1 / sizes[groups][order],
        patient_scores=np.sort(group_maxima(np.asarray(scores, np.float64), groups)),
    )


def _check_finite(scores: Scalars) -> None:
    if not np.isfinite(scores).all():
        raise UserError("calibration: a score is not finite; train again or look at the images.")
