"""The evaluation of one test split: scores, metrics and examples, in the files of its folder."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxad.calibration.calibration_set import OWN_SPLIT, CalibrationSet
from jaxad.data.leaks import TRAINING_SPLITS
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.detector.detector import SCORE, Detector, score_columns
from jaxad.errors import RunError
from jaxad.evaluate import examples, metrics
from jaxad.evaluate.reconstructions import quality
from jaxad.evaluate.references import (
    PIXEL_STATISTICS,
    TITLES,
    ReferenceScores,
    encoder_title,
)
from jaxad.evaluate.score_table import write_score_table
from jaxad.evaluate.split_metrics import SplitMetrics
from jaxad.runtime import processes
from jaxad.runtime.progress import progress_bar
from jaxad.storage import working_copies
from jaxad.storage.workdir import write_json
from jaxad.types import Pixels, Scores, Split

logger = logging.getLogger(__name__)

Scalars = Float[np.ndarray, " n"]
Maps = Float[np.ndarray, "n height width"]

#: Memory that metrics of pixels take for each pixel of a split, measured.
_BYTES_PER_PIXEL = 140
#: Metrics that the terminal shows, besides those of `config.evaluate.metrics`.
_PRINTED = (
    metrics.AUROC, metrics.AUROC_CORRECTED, metrics.AVERAGE_PRECISION, metrics.PIXEL_AUROC,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """What the test splits of one evaluation have in common.

    Attributes:
        detector: scores the images.
        metrics: the metrics to compute.
        normals: the calibration of the decisions.
        data_set: the data set of the run; None if it is not available.
        references: the reference scores of that data set; None without it.
        val_scores: the scores of the run's `val`; None where slices have no positions to correct.
    """

    detector: Detector
    metrics: Sequence[metrics.Metric]
    normals: CalibrationSet
    data_set: DataSet | None
    references: ReferenceScores | None
    val_scores: Scalars | None

    def write(
        self, folder: Path, name: str, split: Split, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Scores a test split; writes `scores.csv`, `examples.npz` and, last, `metrics.json`.

        Args:
            folder: the folder of these files.
            name: the name of the split.
            split: the images.
            facts: further keys of `metrics.json`.

        Raises:
            RunError: a score is not finite, or a metric fails.
        """
        # A folder with metrics.json is a finished evaluation: delete it first, write it last.
        if processes.is_first() and (folder / "metrics.json").exists():
            (folder / "metrics.json").unlink()
            working_copies.publish(folder, now=True)
        detector, config = self.detector, self.detector.config
        if split.masks is not None and not isinstance(split.masks, np.ndarray):
            _warn_of_pixel_metrics(name, split.masks)
        # Only metrics of pixels need whole maps.
        reduce = _map_sums if split.masks is None else np.asarray
        columns, maps = score_split(detector, split, f"score {name}", reduce, with_quality=True)
        train, val = (
            None if self.data_set is None else self.data_set.split(known)
            for known in TRAINING_SPLITS
        )
        evaluation = SplitMetrics(config, self.metrics, split, train, val)
        corrected = evaluation.corrected(columns[SCORE], self.val_scores)
        write_score_table(folder / "scores.csv", split, {**columns, **corrected})
        check_finite(name, "score", split, columns[SCORE])
        check_finite(name, "anomaly map", split, maps if split.masks is None else _map_sums(maps))
        at_means = config.model.get("score_samples") == 0
        _report_constants(name, columns, at_means=at_means)
        _write_examples(folder, detector, split, columns[SCORE])
        results = {
            **evaluation.of_model({**columns, **corrected}, None if split.masks is None else maps),
            "checkpoint_step": detector.step,
            "num_parameters": detector.num_parameters,
            "num_latents": detector.num_latents,
            "score_weights": dict(detector.score_weights),
            **self._compare(evaluation, name, columns[SCORE]),
            **(facts or {}),
        }
        write_json(folder / "metrics.json", results)
        _print_summary(name, self.metrics, results)

    def _compare(self, evaluation: SplitMetrics, name: str, scores: Scalars) -> dict[str, Any]:
        """Returns decisions and the comparison with reference scores, for `metrics.json`."""
        config = self.detector.config
        if self.references is None:
            reason = "the training images are not available"
            return {
                "decisions": evaluation.decisions(scores, self.normals, None),
                "best_reference": None,
                "reference_encoder": "",
                "trivial": {key: {"undefined": reason} for key in TITLES},
            }
        of_split = self.references.of(name, config)
        of_val = self.references.of(OWN_SPLIT, config)
        undefined = self.references.undefined(config)
        return {
            "decisions": evaluation.decisions(scores, self.normals, of_split[PIXEL_STATISTICS]),
            "best_reference": evaluation.best_reference(scores, of_split),
            "reference_encoder": encoder_title(config),
            "trivial": {
                **{key: evaluation.of_reference(of_split[key], of_val[key]) for key in of_split},
                **{key: {"undefined": reason} for key, reason in undefined.items()},
            },
        }


def check_finite(name: str, what: str, split: Split, scores: Scalars) -> None:
    """Raises a RunError that names the first image with a value that is not finite."""
    bad = ~np.isfinite(scores)
    if bad.any():
        first = int(np.argmax(bad))
        raise RunError(
            f"{name}: the {what} of image '{split.ids[first]}' is not finite ({int(bad.sum())} "
            "such images); check it, or train with a smaller "
            "config.optim.learning_rate."
        )


def _warn_of_pixel_metrics(name: str, masks: Pixels) -> None:
    """Warns of the memory that metrics of pixels take although the masks are on disk."""
    if not processes.is_first():
        return
    size = np.prod(masks.shape, dtype=float) * _BYTES_PER_PIXEL / 2**30
    logger.warning(
        f"warning: {name}: metrics of pixels take about {size:.3g} GiB of memory, whatever "
        "config.data.in_memory is, because they sort all pixels of the split."
    )


def _report_constants(name: str, columns: Mapping[str, Scalars], *, at_means: bool) -> None:
    """Reports columns that have the same value for every image: they carry no information.

    With `at_means`, scores take latents at their means, and training drew them.
    """
    hint = ""
    if at_means:
        hint = (
            " Scores take the latents at their means; the terms in the log of training are of "
            "drawn latents, and differ."
        )
    for column, values in columns.items():
        if len(values) > 1 and (values == values[0]).all():
            logger.info(
                f"{name}: '{column}' is {values[0] + 0.0:g} for every image and carries no "
                f"information.{hint if column not in (SCORE, 'mse') else ''}"
            )


def _bar(split: Split, description: str) -> Any:
    return progress_bar(
        total=len(split), desc=description, unit="image",
        disable=not processes.is_first(),
    )  # fmt: skip


def score_split(
    detector: Detector,
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
            count, more = len(scores.image), {}
            if with_quality and scores.reconstructions:  # reads the images again
                more = quality(scores, split.images[done : done + count])
            columns.append({**score_columns(scores), **more})
            reduced.append(reduce(np.asarray(scores.pixel)))
            bar.update(count)
            done += count
    joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return joined, np.concatenate(reduced)


def _map_sums(maps: Maps) -> Scalars:
    return maps.sum(axis=(1, 2))


def map_maxima(maps: Maps) -> Scalars:
    """Returns the largest value of each anomaly map."""
    return np.max(maps, axis=(1, 2))


def _write_examples(folder: Path, detector: Detector, split: Split, scores: Scalars) -> None:
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
