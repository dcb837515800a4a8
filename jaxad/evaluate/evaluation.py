"""Evaluates a run: every test split to `eval/<split>/`."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxad.calibration import stored as calibration_lib
from jaxad.calibration.evidence import NormalEvidence
from jaxad.calibration.stored import StoredCalibration
from jaxad.data import membership
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.detector import from_run as detector_lib
from jaxad.detector.from_run import Detector
from jaxad.detector.scorer import SCORE, score_columns
from jaxad.errors import RunError
from jaxad.evaluate import decisions, examples, metrics
from jaxad.evaluate.positions import position_corrected
from jaxad.evaluate.score_table import CORRECTED_SCORE, write_score_table
from jaxad.evaluate.trivial import PIXEL_STATISTICS, TrivialScores
from jaxad.runtime import interrupts, processes
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import Split, group_numbers

logger = logging.getLogger(__name__)

Scalars = Float[np.ndarray, " n"]
TrainScalars = Float[np.ndarray, " m"]


def evaluate_splits(
    workdir: Workdir, data_set: DataSet, trivial: TrivialScores | None = None
) -> None:
    """Scores every test split with the last checkpoint and writes scores, metrics and examples.

    Args:
        workdir: a run with a checkpoint.
        data_set: its data.
        trivial: of the same data, where another run has computed them.
    """
    detector = detector_lib.load(workdir.path)
    steps = processes.of_all(detector.step)
    if len(set(steps)) > 1:
        raise RunError(
            f"workdir '{workdir.path}': processes see other newest checkpoints, {steps}; evaluate "
            "once the file system shows all of them the same."
        )
    membership.check(workdir, data_set)
    trivial = TrivialScores(data_set) if trivial is None else trivial
    train = data_set.split("train")
    train_scores = _image_scores(detector, train, "score train")
    stored = _calibrated(workdir, detector, data_set)
    for name in data_set.test_split_names:
        interrupts.check()
        split = data_set.split(name)
        folder = workdir.evaluation(name)
        # A folder with metrics is a finished evaluation: they go first and come last.
        if processes.is_first():
            (folder / "metrics.json").unlink(missing_ok=True)
        columns, maps = _collect(detector, split, f"score {name}")
        evaluation = _SplitEvaluation(detector.config, train, split)
        corrected = evaluation.corrected(columns["score"], train_scores)
        added = {} if corrected is None else {CORRECTED_SCORE: corrected}
        write_score_table(folder / "scores.csv", split, {**columns, **added})
        _check_finite(name, "score", split, columns["score"])
        _check_finite(name, "anomaly map", split, maps.sum(axis=(1, 2)))
        _warn_of_constants(name, columns)
        _write_examples(folder, detector, split, columns["score"])
        found = evaluation.of_model(columns, maps, train_scores)
        found["checkpoint_step"] = detector.step
        found["num_parameters"] = detector.num_parameters
        found["num_latents"] = detector.num_latents
        found["score_weights"] = dict(detector.score_weights)
        pixel_statistics = trivial.of(name)[PIXEL_STATISTICS]
        found["decisions"] = evaluation.decisions(columns["score"], stored, pixel_statistics)
        train_trivial = trivial.of("train")
        found["trivial"] = {
            key: evaluation.of_scores(scores, train_trivial[key])
            for key, scores in trivial.of(name).items()
        }
        write_json(folder / "metrics.json", found)
        _print_summary(name, found)


def calibrate(workdir: Workdir, source: str, normals: Split) -> None:
    """Makes normal images of another site the run's calibration; its evaluation stays as it is."""
    detector = detector_lib.load(workdir.path)
    _store(workdir, detector, source, normals, *_evidence(detector, normals, "score normals"))


def _calibrated(workdir: Workdir, detector: Detector, data_set: DataSet) -> StoredCalibration:
    """Another site's calibration of this checkpoint where there is one, else that of `val`."""
    there = calibration_lib.read(workdir)
    if there is not None and not there.is_own:
        if there.checkpoint_step == detector.step:
            _print_calibration(there, detector)
            return there
        logger.info(
            f"calibration on '{there.source}' was of checkpoint {there.checkpoint_step}: dropped; "
            "calibrate there again."
        )
    split = data_set.split(calibration_lib.OWN)
    scores, evidence = _evidence(detector, split, f"score {calibration_lib.OWN}")
    # The run's failure, where another site's images would be the user's mistake.
    _check_finite(calibration_lib.OWN, "score", split, scores)
    return _store(workdir, detector, None, split, scores, evidence)


def _store(
    workdir: Workdir,
    detector: Detector,
    source: str | None,
    normals: Split,
    scores: Scalars,
    evidence: NormalEvidence,
) -> StoredCalibration:
    step = detector.step
    stored = calibration_lib.store(workdir, source, step, normals, scores, evidence)
    _print_calibration(stored, detector)
    return stored


def _print_calibration(stored: StoredCalibration, detector: Detector) -> None:
    logger.info(decisions.summary(stored, detector.config.evaluate.false_positive_rate))


def _check_finite(name: str, what: str, split: Split, scores: Scalars) -> None:
    """Raises a RunError that names the first image of which something is not finite."""
    bad = ~np.isfinite(scores)
    if bad.any():
        first = int(np.argmax(bad))
        raise RunError(
            f"{name}: the {what} of image '{split.ids[first]}' is not finite "
            f"({int(bad.sum())} such images); look at it, or train with a smaller "
            "config.optim.learning_rate."
        )


def _warn_of_constants(name: str, columns: dict[str, Scalars]) -> None:
    """A line for every part of the score that is the same for all images: it tells nothing."""
    for column, values in columns.items():
        if len(values) > 1 and (values == values[0]).all():
            logger.info(
                f"{name}: '{column}' is {values[0] + 0.0:g} for every image and tells nothing "
                "about any."
            )


class _SplitEvaluation:
    """What the metrics of one test split share: labels, groups, positions, resamples."""

    def __init__(self, config: Any, train: Split, split: Split):
        self._train = train
        self._split = split
        self._labels = split.labels.astype(np.int64)
        self._groups = group_numbers(split.groups)
        self._rate = float(config.evaluate.false_positive_rate)
        self._resamples = int(config.evaluate.bootstrap_resamples)

    def corrected(self, scores: Scalars, train_scores: TrainScalars) -> Scalars | None:
        """The scores minus their slice position's training mean; None without positions."""
        positions, train_positions = self._split.positions, self._train.positions
        if positions is None or train_positions is None:
            return None
        return position_corrected(scores, positions, train_scores, train_positions)

    def of_scores(self, scores: Scalars, train_scores: TrainScalars) -> dict[str, Any]:
        """AUROC, raw and, where slices have positions, position-corrected."""
        found = {"auroc": self._detection("auroc", scores)}
        corrected = self.corrected(scores, train_scores)
        if corrected is not None:
            found["auroc_position_corrected"] = self._detection("auroc", corrected)
        return found

    def of_model(
        self, columns: dict[str, Scalars], maps: np.ndarray, train_scores: TrainScalars
    ) -> dict[str, Any]:
        """Every metric of a system."""
        scores = columns["score"]
        found = self.of_scores(scores, train_scores)
        found["average_precision"] = self._detection("average_precision", scores)
        if "mse" in columns:
            normal = self._labels == 0
            found["mse"] = metrics.mean(
                columns["mse"][normal], self._groups[normal], self._resamples
            ).as_json()
        if self._split.masks is not None:
            pixel = metrics.pixel_metrics(self._split.masks, maps, self._groups, self._resamples)
            found.update({name: estimate.as_json() for name, estimate in pixel.items()})
        found["num_images"] = len(self._split)
        found["num_anomalous"] = int(self._labels.sum())
        found["num_groups"] = int(self._groups.max()) + 1
        for key, split in (("", self._split), ("training_", self._train)):
            if split.files is not None:
                found[f"num_{key}files_skipped"] = len(split.files.skipped)
        return found

    def decisions(
        self, scores: Scalars, stored: StoredCalibration, pixel_statistics: Scalars
    ) -> dict[str, Any]:
        """From normal images alone, and AE-FLOW's protocol where there are both classes."""
        rate, count = self._rate, self._resamples
        arguments = (self._labels, scores.astype(np.float64), self._groups, count)
        found = {
            "calibration": stored.name,
            "images_are_patients": stored.images_are_patients,
            "normal_images_only": decisions.of_normals(stored.calibration, rate, *arguments),
        }
        if len(np.unique(self._labels)) == 2:
            found.update(decisions.of_labels(*arguments))
            trivial = (self._labels, pixel_statistics.astype(np.float64), self._groups, count)
            found["pixel_statistics"] = decisions.best_on_test(*trivial)
        return found

    def _detection(self, name: str, scores: Scalars) -> dict[str, float | None]:
        return metrics.detection(
            name, self._labels, scores, self._groups, self._resamples
        ).as_json()


def _bar(split: Split, description: str) -> Any:
    return tqdm(
        total=len(split), desc=description, unit="image", dynamic_ncols=True,
        disable=not processes.is_first(),
    )  # fmt: skip


def _image_scores(detector: Detector, split: Split, description: str) -> Scalars:
    """Image scores alone."""
    parts: list[np.ndarray] = []
    with _bar(split, description) as bar:
        for scores in detector.image_score_batches(split.images):
            parts.append(scores)
            bar.update(len(scores))
    return np.concatenate(parts)


def _evidence(detector: Detector, split: Split, description: str) -> tuple[Scalars, NormalEvidence]:
    """Image scores of normal images, and what else is known of them."""
    found: list[dict[str, Any]] = []
    maxima: list[np.ndarray] = []
    with _bar(split, description) as bar:
        for scores in detector.score_batches(split.images):
            found.append(score_columns(scores))
            maxima.append(np.max(scores.pixel, axis=(1, 2)))
            bar.update(len(scores.image))
    joined = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return joined.pop(SCORE), NormalEvidence(joined, np.concatenate(maxima))


def _collect(
    detector: Detector, split: Split, description: str
) -> tuple[dict[str, Scalars], np.ndarray]:
    """Columns `score` and every component, each [N], and the anomaly maps [N, H, W]."""
    found: list[dict[str, Any]] = []
    maps: list[np.ndarray] = []
    with _bar(split, description) as bar:
        for scores in detector.score_batches(split.images):
            found.append(score_columns(scores))
            maps.append(np.asarray(scores.pixel))
            bar.update(len(scores.image))
    joined = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return joined, np.concatenate(maps)


def _write_examples(folder: Path, detector: Detector, split: Split, scores: Scalars) -> None:
    """`examples.npz`: a few telling slices with all that was seen in them."""
    count = min(int(detector.config.evaluate.num_examples), len(split) // 2)
    if not count:
        return
    kinds = examples.choose(scores, split.labels, split.groups, count)
    images = to_unit_interval(split.images[examples.rows_of(kinds)])
    seen = detector.score(images)
    examples.write_examples(folder / "examples.npz", split, kinds, images, seen)


def _print_summary(name: str, found: dict[str, Any]) -> None:
    """One line a split for the terminal."""

    def text(estimate: dict[str, float | None]) -> str:
        value, low, high = (estimate[key] for key in ("value", "low", "high"))
        if value is None:
            return "undefined (one class only)"
        return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    keys = ("auroc", "auroc_position_corrected", "average_precision", "pixel_auroc")
    parts = [f"{key} {text(found[key])}" for key in keys if key in found]
    logger.info(f"{name}: {', '.join(parts)}")
