"""Evaluates a run on its test splits, in `eval/<split>/`, and calibrates its decisions."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxad.calibration.calibration_set import (
    OWN_SPLIT,
    CalibrationSet,
    make_calibration_set,
    read_calibration_set,
    write_calibration_set,
)
from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.detector import exported
from jaxad.detector.detector import SCORE, Detector
from jaxad.detector.restored import RestoredDetector, restore
from jaxad.errors import RunError
from jaxad.evaluate import decisions, metrics
from jaxad.evaluate.positions import describe_correction
from jaxad.evaluate.references import ReferenceScores
from jaxad.evaluate.split_evaluation import Evaluator, check_finite, map_maxima, score_split
from jaxad.runtime import interrupts, processes
from jaxad.storage import history
from jaxad.storage.workdir import Workdir
from jaxad.types import Split

logger = logging.getLogger(__name__)

Scalars = Float[np.ndarray, " n"]


def evaluate_splits(
    workdir: Workdir, data_set: DataSet, references: ReferenceScores | None = None
) -> None:
    """Scores every test split with the last checkpoint and writes scores, metrics and examples.

    Args:
        workdir: a run with a checkpoint.
        data_set: the run's data.
        references: reference scores of the same data, to share between runs.

    Raises:
        UserError: `config.evaluate.metrics` does not name a usable metric.
        RunError: a score is not finite, a metric fails, or processes see different checkpoints.
    """
    detector = restore_same(workdir)
    all_metrics = metrics.load_metrics(detector.config)
    membership.check(workdir, data_set)
    val = data_set.split(OWN_SPLIT)
    corrects = bool(detector.config.evaluate.position_correction)
    val_columns, val_maxima = score_split(detector, val, f"score {OWN_SPLIT}", map_maxima)
    # With the run's own images this is a failed run; with another site's, a mistake of the user.
    check_finite(OWN_SPLIT, "score", val, val_columns[SCORE])
    evaluator = Evaluator(
        detector=detector,
        metrics=all_metrics,
        normals=_calibrate_or_keep(workdir, detector, val, val_columns, val_maxima),
        data_set=data_set,
        references=ReferenceScores(data_set) if references is None else references,
        val_scores=val_columns[SCORE],
    )
    # The first evaluation of a run explains it, once for splits of which it says the same.
    explains = corrects and data_set.info.is_users_own and "evaluation" not in history.read(workdir)
    explained = {""}
    for name in data_set.test_split_names:
        interrupts.check()
        split = data_set.split(name)
        if explains and (line := describe_correction(split, val)) not in explained:
            logger.info(f"{name}: {line}")
            explained.add(line)
        evaluator.write(workdir.evaluation(name), name, split)


def restore_same(workdir: Workdir) -> RestoredDetector:
    """Restores the last checkpoint of a run; a RunError if processes see different ones."""
    detector = restore(workdir.path)
    steps = processes.of_all(detector.step)
    if len(set(steps)) > 1:
        raise RunError(
            f"workdir '{workdir.path}': processes see different newest checkpoints, {steps}; "
            "evaluate again once the file system shows all of them the same files."
        )
    return detector


def calibrate(workdir: Workdir, source: str, normals: Split) -> None:
    """Calibrates a run on normal images of another site; its evaluation is left unchanged.

    Raises:
        UserError: a score is not finite.
    """
    detector = restore(workdir.path)
    columns, maxima = score_split(detector, normals, "score normals", map_maxima)
    _calibrate(workdir, detector, source, normals, columns, maxima)


def _calibrate_or_keep(
    workdir: Workdir,
    detector: RestoredDetector,
    val: Split,
    columns: Mapping[str, Scalars],
    maxima: Scalars,
) -> CalibrationSet:
    """Returns another site's calibration of this checkpoint; without one, calibrates on `val`."""
    stored = read_calibration_set(workdir.calibration)
    if stored is not None and not stored.is_own:
        if stored.checkpoint_step == detector.step:
            logger.info(decisions.summary(stored, detector.config.evaluate.false_positive_rate))
            return stored
        logger.info(
            f"the calibration on '{stored.source}' was made with checkpoint "
            f"{stored.checkpoint_step}, not {detector.step}, and is dropped; run --mode=calibrate "
            "again."
        )
    return _calibrate(workdir, detector, None, val, columns, maxima)


def _calibrate(
    workdir: Workdir,
    detector: RestoredDetector,
    source: str | None,
    normals: Split,
    columns: Mapping[str, Scalars],
    maxima: Scalars,
) -> CalibrationSet:
    calibration_set = calibrate_on(detector, source, normals, columns, maxima)
    write_calibration_set(workdir.calibration, calibration_set)
    file = workdir.exported
    if processes.is_first() and file.exists():
        _tell_if_outdated(file, calibration_set)
    return calibration_set


def _tell_if_outdated(file: Path, normals: CalibrationSet) -> None:
    """Logs that an exported file beside the run has another calibration than the run."""
    if not exported.has_calibration(file, normals):
        logger.warning(
            f"note: '{file}' was exported before and keeps its own calibration; write it again "
            "with --mode=export."
        )


def calibrate_on(
    detector: Detector,
    source: str | None,
    normals: Split,
    columns: Mapping[str, Scalars],
    maxima: Scalars,
) -> CalibrationSet:
    """Makes a calibration set of scored normal images and logs the thresholds.

    Args:
        detector: the detector that scored them.
        source: see `make_calibration_set`.
        normals: the images.
        columns: the score and its components; see `score_split`.
        maxima: the largest value of each anomaly map.

    Raises:
        UserError: a score is not finite.
    """
    components = {name: values for name, values in columns.items() if name != SCORE}
    calibration_set = make_calibration_set(
        source, detector.step, normals, columns[SCORE], components, maxima
    )
    logger.info(decisions.summary(calibration_set, detector.config.evaluate.false_positive_rate))
    return calibration_set
