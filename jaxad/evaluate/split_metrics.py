"""The metrics, decisions and reference scores of one test split, as `metrics.json` holds them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxad.calibration.calibration_set import CalibrationSet
from jaxad.detector.detector import SCORE
from jaxad.evaluate import decisions, metrics, paired
from jaxad.evaluate.pixel_metrics import estimate_pixels
from jaxad.evaluate.positions import corrected_column
from jaxad.types import Split, group_numbers

Scalars = Float[np.ndarray, " n"]
ValScalars = Float[np.ndarray, " m"]
Maps = Float[np.ndarray, "n height width"]


class SplitMetrics:
    """The evaluation of one test split: labels, groups, metrics and resamples."""

    def __init__(
        self,
        config: ConfigDict,
        all_metrics: Sequence[metrics.Metric],
        split: Split,
        train: Split | None,
        val: Split | None,
    ):
        """Takes the run's `train` and `val`, None where they are not available."""
        self._metrics, self._split, self._train, self._val = all_metrics, split, train, val
        self._labels = split.labels.astype(np.int64)
        self._groups = group_numbers(split.groups)
        self._rate = float(config.evaluate.false_positive_rate)
        self._resamples = int(config.evaluate.bootstrap_resamples)
        self._corrects = bool(config.evaluate.position_correction)

    def corrected(self, scores: Scalars, val_scores: ValScalars | None) -> dict[str, Scalars]:
        """Returns the position-corrected column of scores; {} if it is not available."""
        if self._val is None or val_scores is None:
            return {}
        return corrected_column(scores, self._split, val_scores, self._val, wanted=self._corrects)

    def of_reference(self, scores: Scalars, val_scores: ValScalars) -> dict[str, Any]:
        """Returns the AUROC of a reference score, raw and (with positions) corrected."""
        columns = {SCORE: scores, **self.corrected(scores, val_scores)}
        return self._estimates((metrics.AUROC, metrics.AUROC_CORRECTED), columns)

    def best_reference(
        self, scores: Scalars, references: Mapping[str, Scalars]
    ) -> dict[str, Any] | None:
        """Compares the system with the reference of the highest AUROC on these images.

        Returns:
            Its `name`, and the `difference` in AUROC (system minus reference) over the same
            resamples of patients; None where only one class is present, or no reference.
        """
        if self._labels.min() == self._labels.max() or not references:
            return None
        split = {
            key: paired.ScoredSplit(self._labels, self._groups, {SCORE: values.astype(np.float64)})
            for key, values in references.items()
        }
        name = max(split, key=lambda key: paired.value(metrics.AUROC, split[key]))
        ours = paired.ScoredSplit(self._labels, self._groups, {SCORE: scores.astype(np.float64)})
        difference = paired.difference(metrics.AUROC, [ours], [split[name]], self._resamples)
        return {"name": name, "difference": difference.as_json()}

    def of_model(self, columns: Mapping[str, Scalars], maps: Maps | None) -> dict[str, Any]:
        """Returns every metric of a system, and the sizes of the split.

        `maps` are the anomaly maps, which only metrics of pixels need: None without masks.
        """
        results = self._estimates(self._metrics, columns)
        if self._split.masks is not None:
            assert maps is not None
            masks = self._split.masks[:]
            pixel = estimate_pixels(self._metrics, masks, maps, self._groups, self._resamples)
            results.update({name: estimate.as_json() for name, estimate in pixel.items()})
        results["num_images"] = len(self._split)
        results["num_anomalous"] = int(self._labels.sum())
        results["num_patients"] = int(self._groups.max()) + 1
        for key, split in (("", self._split), ("training_", self._train)):
            if split is not None and split.files is not None:
                results[f"num_{key}files_skipped"] = len(split.files.skipped)
                results[f"num_{key}blank_images"] = len(split.files.blank)
                results[f"num_{key}noisy_files"] = split.files.num_noisy
        return results

    def decisions(
        self, scores: Scalars, normals: CalibrationSet, pixel_statistics: Scalars | None
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
            if pixel_statistics is not None:
                statistics = pixel_statistics.astype(np.float64)
                best = decisions.best_on_test(labels, statistics, groups, count)
                results["pixel_statistics"] = best
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
