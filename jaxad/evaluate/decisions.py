"""What a run decides: its calibration on normal images, and what its decisions are worth.

The calibration is `calibration.json` in the run's folder, the score of every normal image that it
is of; by default those of `val`, which no training saw. Another site's normal images replace it
without training, and then stay until the run trains on.
"""

import dataclasses
import functools
import json
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from jaxad import detector as detector_lib
from jaxad.errors import UserError
from jaxad.evaluate import metrics, thresholds
from jaxad.evaluate.conformal import Calibration, calibrate, group_maxima
from jaxad.types import Split
from jaxad.workdir import Workdir, write_json

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]


#: The split that every evaluation calibrates on where there is no calibration on another site.
OWN = "val"


@dataclasses.dataclass(frozen=True)
class StoredCalibration:
    """What a run keeps of its calibration.

    Attributes:
        source: which images: `OWN`, or another site's file as it was named.
        is_own: whether they are the run's own `OWN`.
        checkpoint_step: of the checkpoint that scored them; scores of another one are others.
        ids: of the images.
        groups: the patient of each.
        scores: of each.
    """

    source: str
    is_own: bool
    checkpoint_step: int
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    scores: Scalars

    @property
    def name(self) -> str:
        """How the source is called where people read it."""
        return self.source if self.is_own else Path(self.source).name

    @property
    def images_are_patients(self) -> bool:
        """Whether no image has a patient but itself: `group` was left out, or truly so."""
        return len(set(self.groups)) == len(self.ids)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """What the scores say.

        Raises:
            UserError: a score is not finite.
        """
        return calibrate(self.scores, metrics.group_numbers(self.groups))


def store_calibration(
    workdir: Workdir, source: str | None, checkpoint_step: int, split: Split, scores: Scalars
) -> StoredCalibration:
    """Makes the scores of a split of normal images the run's calibration.

    The source is another site's file; None is the run's own `OWN`.

    Raises:
        UserError: a score is not finite.
    """
    # As doubles: a threshold that is read back is the one that was found, to the last bit.
    stored = StoredCalibration(
        source=OWN if source is None else source,
        is_own=source is None,
        checkpoint_step=checkpoint_step,
        ids=split.ids,
        groups=split.groups,
        scores=scores.astype(np.float64),
    )
    stored.calibration  # noqa: B018 - checks the scores
    fields = {**dataclasses.asdict(stored), "scores": stored.scores.tolist()}
    write_json(workdir.calibration, fields)
    return stored


def stored_calibration(workdir: Workdir) -> StoredCalibration | None:
    """The run's calibration, of whichever checkpoint; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = workdir.calibration
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        found = StoredCalibration(
            source=str(fields["source"]),
            is_own=bool(fields["is_own"]),
            checkpoint_step=int(fields["checkpoint_step"]),
            ids=tuple(map(str, fields["ids"])),
            groups=tuple(map(str, fields["groups"])),
            scores=np.array(fields["scores"], np.float64),
        )
        if not len(found.ids) == len(found.groups) == len(found.scores):
            raise ValueError("its lists are of different lengths")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"'{path}' cannot be read ({error!r}); remove it, then write it again with "
            "--mode=evaluate or --mode=calibrate."
        ) from error
    return found


def load_calibration(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> Calibration:
    """The calibration of a run, for the scores of one of its checkpoints.

    Args:
        path: the run's workdir.
        checkpoint: the one whose scores are to be judged, as `jaxad.load` took it.

    Raises:
        UserError: no run, no calibration, or it is of another checkpoint.
    """
    workdir = Workdir(path)
    workdir.read_config()  # says where there is no run
    step = detector_lib.checkpoint_step(workdir, checkpoint)
    found = stored_calibration(workdir)
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


def summary(stored: StoredCalibration, rate: float) -> str:
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
            "`group`, or nothing of this is guaranteed."
        )
    return text
