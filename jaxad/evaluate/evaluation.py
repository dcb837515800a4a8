"""Evaluates a run: scores every test split and writes `eval/<split>/`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxad.calibration.calibration_set import (
    OWN_SPLIT,
    CalibrationSet,
    read_calibration_set,
    write_calibration_set,
)
from jaxad.data import membership
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.detector.detector import SCORE, score_columns
from jaxad.detector.restored import RestoredDetector, restore
from jaxad.errors import RunError
from jaxad.evaluate import decisions, examples, metrics, paired
from jaxad.evaluate.pixel_metrics import estimate_pixels
from jaxad.evaluate.positions import corrected_column, describe_correction
from jaxad.evaluate.reconstructions import quality
from jaxad.evaluate.references import (
    PIXEL_STATISTICS,
    TITLES,
    ReferenceScores,
    encoder_title,
)
from jaxad.evaluate.score_table import write_score_table
from jaxad.runtime import interrupts, processes
from jaxad.runtime.progress import progress_bar
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import Scores, Split, group_numbers

logger = logging.getLogger(__name__)

Scalars = Float[np.ndarray, " n"]
ValScalars = Float[np.ndarray, " m"]
Maps = Float[np.ndarray, "n height width"]

#: Metrics that the terminal shows, besides those of `config.evaluate.metrics`.
_PRINTED = (
    metrics.AUROC, metrics.AUROC_CORRECTED, metrics.AVERAGE_PRECISION, metrics.PIXEL_AUROC,
)  # fmt: skip


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
    detector = restore(workdir.path)
    all_metrics = metrics.load_metrics(detector.config)
    steps = processes.of_all(detector.step)
    if len(set(steps)) > 1:
        raise RunError(
            f"workdir '{workdir.path}': processes see different newest checkpoints, {steps}; "
            "evaluate again once the file system shows all of them the same files."
        )
    membership.check(workdir, data_set)
    references = ReferenceScores(data_set) if references is None else references
    val = data_set.split(OWN_SPLIT)
    corrects = bool(detector.config.evaluate.position_correction)
    val_columns, val_maxima = _score(detector, val, f"score {OWN_SPLIT}", _maxima)
    # With the run's own images this is a failed run; with another site's, a mistake of the user.
    _check_finite(OWN_SPLIT, "score", val, val_columns[SCORE])
    normals = _calibrate_or_keep(workdir, detector, val, val_columns, val_maxima)
    for name in data_set.test_split_names:
        interrupts.check()
        split = data_set.split(name)
        folder = workdir.evaluation(name)
        # A folder with metrics.json is a finished evaluation: delete it first, write it last.
        if processes.is_first():
            (folder / "metrics.json").unlink(missing_ok=True)
        columns, maps = _score(detector, split, f"score {name}", np.asarray, with_quality=True)
        corrected = corrected_column(
            columns[SCORE], split, val_columns[SCORE], val, wanted=corrects
        )
        if corrects and data_set.info.is_users_own and (line := describe_correction(split, val)):
            logger.info(f"{name}: {line}")
        write_score_table(folder / "scores.csv", split, {**columns, **corrected})
        _check_finite(name, "score", split, columns[SCORE])
        _check_finite(name, "anomaly map", split, maps.sum(axis=(1, 2)))
        _report_constants(name, columns)
        _write_examples(folder, detector, split, columns[SCORE])
        evaluation = _SplitEvaluation(detector.config, all_metrics, data_set, split)
        scores = references.of(name, detector.config)
        of_val = references.of(OWN_SPLIT, detector.config)
        undefined = references.undefined(detector.config)
        results = {
            **evaluation.of_model({**columns, **corrected}, maps),
            "checkpoint_step": detector.step,
            "num_parameters": detector.num_parameters,
            "num_latents": detector.num_latents,
            "score_weights": dict(detector.score_weights),
            "decisions": evaluation.decisions(columns[SCORE], normals, scores[PIXEL_STATISTICS]),
            "best_reference": evaluation.best_reference(columns[SCORE], scores),
            "reference_encoder": encoder_title(detector.config),
            "trivial": {
                **{key: evaluation.of_reference(scores[key], of_val[key]) for key in scores},
                **{key: {"undefined": reason} for key, reason in undefined.items()},
            },
        }
        write_json(folder / "metrics.json", results)
        _print_summary(name, all_metrics, results)


def calibrate(workdir: Workdir, source: str, normals: Split) -> None:
    """Calibrates a run on normal images of another site; its evaluation is left unchanged.

    Raises:
        UserError: a score is not finite.
    """
    detector = restore(workdir.path)
    columns, maxima = _score(detector, normals, "score normals", _maxima)
    _calibrate(workdir, detector, source, normals, columns, maxima)


def _calibrate_or_keep(
    workdir: Workdir,
    detector: RestoredDetector,
    val: Split,
    columns: Mapping[str, Scalars],
    maxima: Scalars,
) -> CalibrationSet:
    """Returns another site's calibration of this checkpoint; without one, calibrates on `val`."""
    stored = read_calibration_set(workdir)
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
    components = {name: values for name, values in columns.items() if name != SCORE}
    calibration_set = write_calibration_set(
        workdir, source, detector.step, normals, columns[SCORE], components, maxima
    )
    logger.info(decisions.summary(calibration_set, detector.config.evaluate.false_positive_rate))
    return calibration_set


def _check_finite(name: str, what: str, split: Split, scores: Scalars) -> None:
    """Raises a RunError that names the first image with a value that is not finite."""
    bad = ~np.isfinite(scores)
    if bad.any():
        first = int(np.argmax(bad))
        raise RunError(
            f"{name}: the {what} of image '{split.ids[first]}' is not finite ({int(bad.sum())} "
            "such images); check it, or train with a smaller "
            "config.optim.learning_rate."
        )


def _report_constants(name: str, columns: Mapping[str, Scalars]) -> None:
    """Reports columns that have the same value for every image: they carry no information."""
    for column, values in columns.items():
        if len(values) > 1 and (values == values[0]).all():
            logger.info(
                f"{name}: '{column}' is {values[0] + 0.0:g} for every image and carries no "
                "information."
            )


class _SplitEvaluation:
    """The evaluation of one test split: labels, groups, metrics and resamples."""

    def __init__(
        self,
        config: ConfigDict,
        all_metrics: Sequence[metrics.Metric],
        data_set: DataSet,
        split: Split,
    ):
        self._metrics, self._split = all_metrics, split
        self._train, self._val = data_set.split("train"), data_set.split(OWN_SPLIT)
        self._labels = split.labels.astype(np.int64)
        self._groups = group_numbers(split.groups)
        self._rate = float(config.evaluate.false_positive_rate)
        self._resamples = int(config.evaluate.bootstrap_resamples)
        self._corrects = bool(config.evaluate.position_correction)

    def of_reference(self, scores: Scalars, val_scores: ValScalars) -> dict[str, Any]:
        """Returns the AUROC of a reference score, raw and (with positions) corrected."""
        corrected = corrected_column(
            scores, self._split, val_scores, self._val, wanted=self._corrects
        )
        columns = {SCORE: scores, **corrected}
        return self._estimates((metrics.AUROC, metrics.AUROC_CORRECTED), columns)

    def best_reference(
        self, scores: Scalars, references: Mapping[str, Scalars]
    ) -> dict[str, Any] | None:
        """Compares the system with the reference of the highest AUROC on these images.

        Returns:
            Its `name`, and the `difference` in AUROC (system minus reference) over the same
            resamples of patients; None where only one class is present.
        """
        if self._labels.min() == self._labels.max():
            return None
        split = {
            key: paired.ScoredSplit(self._labels, self._groups, {SCORE: values.astype(np.float64)})
            for key, values in references.items()
        }
        name = max(split, key=lambda key: paired.value(metrics.AUROC, split[key]))
        ours = paired.ScoredSplit(self._labels, self._groups, {SCORE: scores.astype(np.float64)})
        difference = paired.difference(metrics.AUROC, [ours], [split[name]], self._resamples)
        return {"name": name, "difference": difference.as_json()}

    def of_model(self, columns: Mapping[str, Scalars], maps: Maps) -> dict[str, Any]:
        """Returns every metric of a system, and the sizes of the split."""
        results = self._estimates(self._metrics, columns)
        if (masks := self._split.masks) is not None:
            pixel = estimate_pixels(self._metrics, masks, maps, self._groups, self._resamples)
            results.update({name: estimate.as_json() for name, estimate in pixel.items()})
        results["num_images"] = len(self._split)
        results["num_anomalous"] = int(self._labels.sum())
        results["num_groups"] = int(self._groups.max()) + 1
        for key, split in (("", self._split), ("training_", self._train)):
            if split.files is not None:
                results[f"num_{key}files_skipped"] = len(split.files.skipped)
        return results

    def decisions(
        self, scores: Scalars, normals: CalibrationSet, pixel_statistics: Scalars
    ) -> dict[str, Any]:
        """Evaluates thresholds from normal images and, with both classes, AE-FLOW's protocol."""
        labels, groups, count = self._labels, self._groups, self._resamples
        arguments = (labels, scores.astype(np.float64), groups, count)
        of_normals = decisions.of_normals(normals.calibration, self._rate, *arguments)
        results = {
            "calibration": normals.name,
            "images_are_patients": normals.images_are_patients,
            "normal_images_only": of_normals,
        }
        if len(np.unique(labels)) == 2:
            results.update(decisions.of_labels(*arguments))
            statistics = pixel_statistics.astype(np.float64)
            results["pixel_statistics"] = decisions.best_on_test(labels, statistics, groups, count)
        return results

    def _estimates(
        self, wanted: Sequence[metrics.Metric], columns: Mapping[str, Scalars]
    ) -> dict[str, Any]:
        return {
            metric.name: metrics.estimate(
                metric, self._labels, columns[metric.column], self._groups, self._resamples
            ).as_json()
            for metric in wanted
            if metric.column in columns
        }


def _bar(split: Split, description: str) -> Any:
    return progress_bar(
        total=len(split), desc=description, unit="image",
        disable=not processes.is_first(),
    )  # fmt: skip


def _score(
    detector: RestoredDetector,
    split: Split,
    description: str,
    reduce: Callable[[Maps], np.ndarray],
    *,
    with_quality: bool = False,
) -> tuple[dict[str, Scalars], np.ndarray]:
    """Returns the columns of a split, and its reduced anomaly maps [N, ...].

    The columns are `score`, every component and, `with_quality`, the quality of reconstructions,
    each [N].
    """
    columns: list[dict[str, Any]] = []
    done = 0
    reduced: list[np.ndarray] = []
    with _bar(split, description) as bar:
        for scores in detector.score_batches(split.images):
            images = split.images[done : done + len(scores.image)]
            more = quality(scores, images) if with_quality else {}
            columns.append({**score_columns(scores), **more})
            reduced.append(reduce(np.asarray(scores.pixel)))
            bar.update(len(images))
            done += len(images)
    joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return joined, np.concatenate(reduced)


def _maxima(maps: Maps) -> Scalars:
    return np.max(maps, axis=(1, 2))


def _write_examples(
    folder: Path, detector: RestoredDetector, split: Split, scores: Scalars
) -> None:
    """Writes `examples.npz`: a few slices of each kind with their reconstructions and maps."""
    count = min(int(detector.config.evaluate.num_examples), len(split) // 2)
    if not count:
        return
    kinds = examples.choose(scores, split.labels, split.groups, count)
    images = to_unit_interval(split.images[examples.rows_of(kinds)])
    scored: Scores = detector.score(images)
    examples.write_examples(folder / "examples.npz", split, kinds, images, scored)


def _print_summary(
    name: str, all_metrics: Sequence[metrics.Metric], results: Mapping[str, Any]
) -> None:
    """Prints one line of metrics for a split; warns of external metrics that have no value."""
    num_normal = results["num_images"] - results["num_anomalous"]

    def is_defined(metric: metrics.Metric) -> bool:
        return num_normal > 0 and (metric.normal_only or results["num_anomalous"] > 0)

    def text(metric: metrics.Metric) -> str:
        value, low, high = (results[metric.name][key] for key in ("value", "low", "high"))
        if value is None:
            return "not finite" if is_defined(metric) else "undefined (one class only)"
        digits = metric.decimals
        interval = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
        return f"{value:.{digits}f}{interval}"

    external = [metric for metric in all_metrics if metric not in metrics.METRICS]
    printed = [m for m in (*_PRINTED, *external) if m.name in results]
    logger.info(f"{name}: {', '.join(f'{metric.name} {text(metric)}' for metric in printed)}")
    if best := results.get("best_reference"):
        auroc = results["trivial"][best["name"]]["auroc"]["value"]
        value, low, high = (best["difference"][key] for key in ("value", "low", "high"))
        interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
        logger.info(
            f"{name}: best reference: {TITLES[best['name']]}, auroc {auroc:.3f}; the system minus "
            f"it: {value:+.3f}{interval}"
        )
    for metric in external:
        if metric.name not in results:
            logger.warning(
                f"{name}: has no '{metric.column}', so metric '{metric.name}' is left out."
            )
        elif results[metric.name]["value"] is None and is_defined(metric):
            logger.warning(
                f"{name}: metric '{metric.name}' is not finite and is left empty; correct it, then "
                "evaluate again."
            )
