"""Decisions from normal images alone: conformal p-values and thresholds with a guarantee.

Patients are exchangeable; slices of one patient are not. Two guarantees follow for a new, normal
patient, with calibration patients g = 1 ... n:

- **Patient.** The score of a patient is the largest of its slices' scores. p = (1 + the number of
  calibration patients that score at least as high) / (n + 1); P(p <= rate) <= rate (split-conformal
  inference; Vovk et al. 2005).
- **Image.** For a random slice of a new patient, p = (1 + the sum over calibration patients of the
  share of their slices that score at least as high) / (n + 1); P(p <= rate) <= rate on average over
  such slices (hierarchical conformal prediction; Lee, Barber and Willett 2023, "Distribution-free
  inference with hierarchical data"). Each patient has the same weight, whatever its number of
  slices.

Both hold on average over calibration sets; given one set, the false-positive rate of patients
follows a Beta law (`realised_rate_law`). Rates below 1 / (n + 1) are not supported.
"""

import dataclasses
import decimal
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from jaxad.errors import UserError

Scalars = Float[np.ndarray, " n"]
GroupNumbers = Int[np.ndarray, " n"]


def format_rate(rate: float) -> str:
    """Returns a rate as text, rounded up if six digits are not exact: 1/3 becomes `0.334`.

    The smallest rate that a calibration supports is accepted when it is typed as it was printed.
    """
    text = f"{rate:g}"
    if float(text) == rate:
        return text
    return f"{decimal.Context(prec=3, rounding=decimal.ROUND_CEILING).create_decimal(rate):f}"


def group_maxima(scores: Scalars, groups: GroupNumbers) -> Float[np.ndarray, " groups"]:
    """Returns the largest score of each group, by group number (0, 1, ...)."""
    maxima = np.full(int(groups.max()) + 1, -np.inf)
    np.maximum.at(maxima, groups, scores)
    return maxima


@dataclasses.dataclass(frozen=True)
class PValueSteps:
    """A p-value as a decreasing step function of a score.

    Attributes:
        scores: the scores at which it steps down, ascending.
        p_values: the p-values of scores up to and including each of `scores` (the first of equal
            ones), then that of scores above all of them.
    """

    scores: Scalars
    p_values: Float[np.ndarray, " n+1"]

    def at(self, scores: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Returns the p-values of scores.

        Raises:
            UserError: a score is not finite.
        """
        _check_finite(scores)
        return self.p_values[np.searchsorted(self.scores, scores, side="left")]

    def threshold(self, rate: float) -> float:
        """Returns the score above which p <= rate, for a rate in [smallest p, 1)."""
        # The p-value of the lowest score is 1.
        return float(self.scores[np.flatnonzero(self.p_values > rate)[-1]])


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scores of normal images by patient, with p-values and thresholds for new images.

    Attributes:
        scores: the scores of the slices, ascending.
        weights: 1 / (number of slices of the patient) of each slice.
        patient_scores: the score of each patient, ascending.
    """

    scores: Scalars
    weights: Scalars
    patient_scores: Float[np.ndarray, " groups"]

    @property
    def num_patients(self) -> int:
        """Number of calibration patients."""
        return len(self.patient_scores)

    @property
    def smallest_rate(self) -> float:
        """The smallest false-positive rate that this number of patients supports."""
        return round(1 / (self.num_patients + 1), 12)  # rounded as p-values are

    def image_p_values(self, scores: Scalars) -> Scalars:
        """Returns the p-values of images by their scores.

        Raises:
            UserError: a score is not finite.
        """
        return self.image_steps.at(scores)

    def patient_p_values(
        self, patient_scores: Float[np.ndarray, " groups"]
    ) -> Float[np.ndarray, " groups"]:
        """Returns the p-values of patients by their scores, each the largest of its slices.

        Raises:
            UserError: a score is not finite.
        """
        return self.patient_steps.at(patient_scores)

    @functools.cached_property
    def image_steps(self) -> PValueSteps:
        """The p-value of an image as a function of its score."""
        weight_from = np.cumsum(self.weights[::-1])[::-1]
        return PValueSteps(self.scores, self._p_value(np.append(weight_from, 0.0)))

    @functools.cached_property
    def patient_steps(self) -> PValueSteps:
        """The p-value of a patient as a function of its score."""
        as_high = np.arange(self.num_patients, -1, -1, dtype=np.float64)
        return PValueSteps(self.patient_scores, self._p_value(as_high))

    def _p_value(self, patients_as_high: Scalars) -> Scalars:
        # Sums of weights such as 1/3 are off by some bits; rounding makes p <= rate exact.
        return np.round((1 + patients_as_high) / (self.num_patients + 1), 12)

    def patient_threshold(self, rate: float) -> float:
        """Returns the score above which a patient is called anomalous: exactly where p <= rate.

        Raises:
            UserError: the rate is not in (0, 1), or these patients cannot support it.
        """
        self._check(rate)
        return self.patient_steps.threshold(rate)

    def image_threshold(self, rate: float) -> float:
        """Returns the score above which an image is called anomalous: exactly where p <= rate.

        Raises:
            UserError: the rate is not in (0, 1), or these patients cannot support it.
        """
        self._check(rate)
        return self.image_steps.threshold(rate)

    def realised_rate_law(self, rate: float) -> Any:
        """Returns the distribution of the patients' false-positive rate, given this set (no ties).

        The rate is one minus the distribution function at the k-th smallest of n scores: a frozen
        `scipy.stats.beta`.

        Raises:
            UserError: the rate is not in (0, 1), or these patients cannot support it.
        """
        self._check(rate)
        called = int(np.sum(self.patient_steps.p_values[1:] <= rate))
        return stats.beta(called, self.num_patients + 1 - called)

    def _check(self, rate: float) -> None:
        if not 0 < rate <= 1 - 1e-9:
            raise UserError(f"a false-positive rate of {rate:g}: choose one between 0 and 1.")
        if rate < self.smallest_rate:
            raise UserError(
                f"a false-positive rate of {rate:g} is not supported by {self.num_patients} normal "
                f"patients: the smallest is {format_rate(self.smallest_rate)}; choose that, or "
                f"calibrate on at least {math.ceil(1 / rate) - 1} patients."
            )


def calibrate(scores: Scalars, groups: GroupNumbers) -> Calibration:
    """Builds a calibration from scores of normal images.

    Args:
        scores: the scores of the images, [N].
        groups: number of each image's patient, 0, 1, ....

    Raises:
        UserError: there are no scores, or one is not finite.
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
        raise UserError("calibration: a score is not finite; train again or check the images.")
