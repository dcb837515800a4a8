"""The decisions of a run: thresholds from normal images or from labels, and how good they are."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxad.calibration.calibration_set import CalibrationSet
from jaxad.calibration.conformal import Calibration, format_rate, group_maxima
from jaxad.evaluate import thresholds
from jaxad.runtime.progress import counted

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]


def of_normals(
    calibration: Calibration,
    rate: float,
    labels: Labels,
    scores: Scalars,
    groups: Labels,
    resamples: int,
) -> dict[str, Any]:
    """Evaluates thresholds from normal images alone on a test split, by image and by patient.

    A rate below the smallest one that the calibration supports is replaced by that one; the result
    holds both. A patient with an anomalous slice is anomalous. The guarantee covers normal
    patients: `realised_rate` is their false-positive rate (by image: the mean over these patients),
    None without normal patients. Specificity by image is over all normal slices, also those of
    anomalous patients.
    """
    granted = max(rate, calibration.smallest_rate)
    of_image = calibration.image_threshold(granted)
    of_patient = calibration.patient_threshold(granted)
    patients = group_maxima(labels.astype(np.float64), groups).astype(np.int64)
    maxima, numbers = group_maxima(scores, groups), np.arange(len(patients))
    called = np.bincount(groups, scores > of_image) / np.bincount(groups)
    normal = patients == 0
    return {
        "requested_rate": rate,
        "rate": granted,
        "smallest_rate": calibration.smallest_rate,
        "calibration_patients": calibration.num_patients,
        "normal_patients": int(normal.sum()),
        "image": {
            **_figures(labels, scores, of_image, groups, resamples),
            "realised_rate": float(called[normal].mean()) if normal.any() else None,
        },
        "patient": {
            **_figures(patients, maxima, of_patient, numbers, resamples),
            "realised_rate": float((maxima > of_patient)[normal].mean()) if normal.any() else None,
        },
    }


def of_labels(labels: Labels, scores: Scalars, groups: Labels, resamples: int) -> dict[str, Any]:
    """Evaluates AE-FLOW's protocol: thresholds chosen by labels of the test split.

    `best_on_test` is what the paper reports, `five_fold` follows its Appendix A, `all_positive_f1`
    is the F1 of calling everything anomalous.
    """
    return {
        "best_on_test": best_on_test(labels, scores, groups, resamples),
        "five_fold": thresholds.five_fold(labels, scores, groups),
        "all_positive_f1": thresholds.all_positive_f1(labels),
    }


def best_on_test(labels: Labels, scores: Scalars, groups: Labels, resamples: int) -> dict[str, Any]:
    """Evaluates the threshold whose F1 is best on the same labels."""
    best = thresholds.best_f1(labels, scores).threshold
    return _figures(labels, scores, best, groups, resamples)


def _figures(
    labels: Labels, scores: Scalars, threshold: float, groups: Labels, resamples: int
) -> dict[str, Any]:
    figures = thresholds.intervals(labels, scores, threshold, groups, resamples)
    estimates = {name: estimate.as_json() for name, estimate in figures.items()}
    return {"threshold": float(threshold), **estimates}


def summary(normals: CalibrationSet, rate: float) -> str:
    """Returns a line that names the thresholds of a calibration at a false-positive rate."""
    calibration = normals.calibration
    granted = max(rate, calibration.smallest_rate)
    number = calibration.num_patients
    at_rate = f"at a false-positive rate of {format_rate(granted)}"
    if granted > rate:
        at_rate = (
            f"a false-positive rate of {rate:g} needs {math.ceil(1 / rate) - 1} patients; at "
            f"{format_rate(granted)}, the smallest rate that these support,"
        )
    text = (
        f"calibrated on {counted(number, 'normal patient')} ({normals.name}): {at_rate} "
        f"an image is anomalous above {calibration.image_threshold(granted):.6g}, a patient above "
        f"{calibration.patient_threshold(granted):.6g}."
    )
    if normals.images_are_patients:
        text += (
            " Every image counts as a separate patient: if patients have several images, set "
            "`group` or config.data.group_pattern; otherwise the rate is not guaranteed."
        )
    return text
