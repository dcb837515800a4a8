"""Paired comparison of systems that scored the same images, over patients and training seeds.

A metric of a system is the mean over its runs (training seeds). Its difference from another
system's is bootstrapped: every resample draws patients, the same for both systems, and runs, for
each system by itself. Slices of one patient stay together (see `metrics.py`).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxad.evaluate import metrics

Scalars = Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
    """What one run made of a test split; runs that are compared have the same rows.

    Attributes:
        labels: 1 = anomalous, [N].
        groups: number of each row's patient, [N].
        columns: per-image values by name: `score`, and what else there is of
            `score_position_corrected` and `mse`.
    """

    labels: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    columns: dict[str, Scalars]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a `ScoredSplit`: of which column, and whether more is better."""

    column: str
    curve: str | None  # a name of `metrics.detection`; None: the mean over normal images
    higher_is_better: bool


METRICS = {
    "mse": Metric("mse", None, False),
    "auroc": Metric("score", "auroc", True),
    "auroc_position_corrected": Metric("score_position_corrected", "auroc", True),
    "average_precision": Metric("score", "average_precision", True),
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of metrics with its 95 % interval and two-sided bootstrap p-value."""

    value: float
    low: float
    high: float
    p_value: float


def is_measured(name: str, run: ScoredSplit) -> bool:
    """Whether a run has what the metric is made of."""
    metric = METRICS[name]
    both_classes = bool(0 < run.labels.mean() < 1)
    return metric.column in run.columns and (both_classes or metric.curve is None)


def under_counts(
    name: str, run: ScoredSplit, counts: Float[np.ndarray, "resamples groups"]
) -> Float[np.ndarray, " resamples"]:
    """The metric with every patient counted so often; NaN where a class was not drawn."""
    metric = METRICS[name]
    values = run.columns[metric.column]
    if metric.curve is not None:
        return metrics.weighted_detection(metric.curve, run.labels, values, run.groups, counts)
    normal, size = run.labels == 0, counts.shape[1]
    sums = np.bincount(run.groups[normal], values[normal], minlength=size)
    numbers = np.bincount(run.groups[normal], minlength=size).astype(float)
    with np.errstate(invalid="ignore"):
        return (counts @ sums) / (counts @ numbers)


def value(name: str, run: ScoredSplit) -> float:
    """The metric of a run."""
    return float(under_counts(name, run, np.ones((1, int(run.groups.max()) + 1)))[0])


def ensemble(runs: Sequence[ScoredSplit]) -> ScoredSplit:
    """Several runs as one: of each score the mean over runs of its rank, in (0, 1].

    Scores of different runs have scales of their own; ranks have one. They are ranks among the
    images of the split: no label is looked at, but an ensemble's score is of this split alone.
    """
    columns = {
        name: np.mean([scipy.stats.rankdata(run.columns[name]) for run in runs], axis=0)
        / len(runs[0].labels)
        for name in ("score", "score_position_corrected")
        if all(name in run.columns for run in runs)
    }
    return ScoredSplit(runs[0].labels, runs[0].groups, columns)


def difference(
    name: str,
    ours: Sequence[ScoredSplit],
    theirs: Sequence[ScoredSplit],
    resamples: int,
    *,
    resample_runs: bool = True,
) -> Difference:
    """The mean over our runs minus the mean over theirs.

    Without resampling of runs the interval is of these very runs, over patients alone. Else: with
    one run on a side it does not hold that side's spread over training seeds, and with two or three
    it holds it roughly.
    """
    rng = np.random.default_rng(0)
    size = int(ours[0].groups.max()) + 1
    counts = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float)

    def resampled_mean(runs: Sequence[ScoredSplit]) -> Float[np.ndarray, " resamples"]:
        of_runs = np.stack([under_counts(name, run, counts) for run in runs])
        drawn = rng.integers(len(runs), size=(len(runs), resamples))
        mean = of_runs.mean(axis=0)
        if not resample_runs:
            return mean
        deviation = np.take_along_axis(of_runs, drawn, axis=0).mean(axis=0) - mean
        # A mean of n draws from n values varies (n - 1) / n as much as one of n new values.
        return mean + deviation * math.sqrt(len(runs) / max(len(runs) - 1, 1))

    drawn = resampled_mean(ours) - resampled_mean(theirs)
    drawn = drawn[np.isfinite(drawn)]
    point = np.mean([value(name, run) for run in ours]) - np.mean(
        [value(name, run) for run in theirs]
    )
    if not len(drawn):
        return Difference(float(point), np.nan, np.nan, np.nan)
    low, high = np.percentile(drawn, [2.5, 97.5])
    # One is added so that a p-value is never zero: there are only so many resamples.
    tail = 1 + min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p_value = min(1.0, 2 * tail / (len(drawn) + 1))
    return Difference(float(point), float(low), float(high), float(p_value))
