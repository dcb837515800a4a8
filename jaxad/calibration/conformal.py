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
import functools
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
class PValueSteps:
    """A p-value as a falling step function of a score.

    Attributes:
        scores: where it falls, ascending.
        p_values: of a score up to and with each of `scores`, the first of equal ones, and last of
            one above all.
    """

    scores: Scalars
    p_values: Float[np.ndarray, " n+1"]

    def at(self, scores: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The p-values of scores.

        Raises:
            UserError: a score is not finite.
        """
        _check_finite(scores)
        return self.p_values[np.searchsorted(self.scores, scores, side="left")]

    def threshold(self, rate: float) -> float:
        """The score above which, and only there, p <= rate; the rate is in [the least p, 1)."""
        # p of the lowest score is 1.
        return float(self.scores[np.flatnonzero(self.p_values > rate)[-1]])


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
        return self.image_steps.at(scores)

    def patient_p_values(
        self, patient_scores: Float[np.ndarray, " groups"]
    ) -> Float[np.ndarray, " groups"]:
        """Of patients by their scores, each the largest of its slices'.

        Raises:
            UserError: a score is not finite.
        """
        return self.patient_steps.at(patient_scores)

    @functools.cached_property
    def image_steps(self) -> "PValueSteps":
        """The p-value of an image as a function of its score."""
        weight_from = np.cumsum(self.weights[::-1])[::-1]
        return PValueSteps(self.scores, self._p_value(np.append(weight_from, 0.0)))

    @functools.cached_property
    def patient_steps(self) -> "PValueSteps":
        """The p-value of a patient as a function of its score."""
        as_high = np.arange(self.num_patients, -1, -1, dtype=np.float64)
        return PValueSteps(self.patient_scores, self._p_value(as_high))

    def _p_value(self, patients_as_high: Scalars) -> Scalars:
        # Rounded: sums of weights such as 1/3 miss by some bits, and p <= rate is to be exact.
        return np.round((1 + patients_as_high) / (self.num_patients + 1), 12)

    def patient_threshold(self, rate: float) -> float:
        """A patient whose score is above it is called anomalous: exactly where p <= rate.

        Raises:
            UserError: the rate is below what the patients can support.
        """
        self._check(rate)
        return self.patient_steps.threshold(rate)

    def image_threshold(self, rate: float) -> float:
        """An image whose score is above it is called anomalous: exactly where p <= rate.

        Raises:
            UserError: see `patient_threshold`.
        """
        self._check(rate)
        return self.image_steps.threshold(rate)

    def realised_rate_law(self, rate: float) -> Any:
        """Of the patients' rate of false positives given the calibration set (no ties).

        The rate is one minus the distribution function at the k-th smallest of n scores: Beta.
        """
        self._check(rate)
        called = int(np.sum(self.patient_steps.p_values[1:] <= rate))
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
