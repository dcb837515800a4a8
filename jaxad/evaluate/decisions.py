"""What a run decides at thresholds from normal images, and what its decisions are worth."""

import dataclasses
import math
import os
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from jaxad.calibration import stored as calibration_lib
from jaxad.calibration.conformal import Calibration, group_maxima
from jaxad.config import run_config
from jaxad.detector import from_file
from jaxad.detector import from_run as detector_lib
from jaxad.errors import UserError
from jaxad.evaluate import thresholds
from jaxad.storage.paths import expand
from jaxad.storage.workdir import Workdir

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]


def load_calibration(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> Calibration:
    """The calibration of a run, for the scores of one of its checkpoints.

    Args:
        path: the run's workdir, or an exported file.
        checkpoint: the one whose scores are to be judged, as `jaxad.load` took it.

    Raises:
        UserError: no run, no calibration, or it is of another checkpoint.
    """
    place = expand(path)
    if place.is_file():
        stored = from_file.load(place).calibration
        if stored is None:
            raise UserError(
                f"'{path}': has no calibration; evaluate the run, then export it again."
            )
        return stored.calibration
    workdir = Workdir(path)
    run_config.read(workdir)  # says where there is no run
    step = detector_lib.checkpoint_step(workdir, checkpoint)
    found = calibration_lib.read(workdir)
    if found is None:
        raise UserError(
            f"workdir '{workdir.path}': has no calibration; write it with --mode=evaluate."
        )
    if found.checkpoint_step != step:
        raise UserError(
            f"workdir '{workdir.path}': its calibration is of checkpoint {found.checkpoint_step}, "
            f"not of {step}; --mode=evaluate and --mode=calibrate write that of the last one."
        )
    return found.calibration


def of_normals(
    calibration: Calibration,
    rate: float,
    labels: Labels,
    scores: Scalars,
    groups: Labels,
    resamples: int,
) -> dict[str, Any]:
    """What decisions at a rate of false positives do to a test split, by image and by patient.

    Where the calibration cannot support the rate, its smallest one is taken and stated. A patient
    is anomalous who has an anomalous slice. The guarantees are of normal patients: `realised_rate`
    is theirs (of images the mean over these patients), null where the split has none, while
    specificity by image is of all normal slices, those of anomalous patients among them.
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
    """AE-FLOW's protocol: figures at thresholds that were chosen by labels of the test split.

    `best_on_test` is what the paper reports, `five_fold` its Appendix A, `all_positive_f1` what F1
    is had for nothing.
    """
    folds = thresholds.five_fold(labels, scores, groups)
    return {
        "best_on_test": best_on_test(labels, scores, groups, resamples),
        "five_fold": None if folds is None else dataclasses.asdict(folds),
        "all_positive_f1": thresholds.all_positive_f1(labels),
    }


def best_on_test(labels: Labels, scores: Scalars, groups: Labels, resamples: int) -> dict[str, Any]:
    """Figures at the threshold whose F1 is best on these very labels."""
    best = thresholds.best_f1(labels, scores).threshold
    return _figures(labels, scores, best, groups, resamples)


def _figures(
    labels: Labels, scores: Scalars, threshold: float, groups: Labels, resamples: int
) -> dict[str, Any]:
    found = thresholds.intervals(labels, scores, threshold, groups, resamples)
    figures = {name: estimate.as_json() for name, estimate in found.items()}
    return {"threshold": float(threshold), **figures}


def summary(stored: calibration_lib.StoredCalibration, rate: float) -> str:
    """A line on what a calibration supports."""
    calibration = stored.calibration
    granted = max(rate, calibration.smallest_rate)
    number = calibration.num_patients
    text = f"calibrated on {number} normal patient{'s' * (number != 1)} ({stored.name}): "
    if granted > rate:
        text += (
            f"a false-positive rate of {rate:g} needs {math.ceil(1 / rate) - 1} of them; at the "
            f"smallest that these support, {granted:.3g}, "
        )
    else:
        text += f"at a false-positive rate of {granted:g} "
    text += (
        f"an image is anomalous above {calibration.image_threshold(granted):.6g}, a patient above "
        f"{calibration.patient_threshold(granted):.6g}."
    )
    if stored.images_are_patients:
        text += (
            " Every image counts as a patient of its own: where several are of one patient, give "
            "it (`group`, config.data.group_pattern), or nothing of this is guaranteed."
        )
    return text
