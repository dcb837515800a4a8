"""Paired comparison of systems that scored the same images, over patients and training seeds.

A metric of a system is the mean over its runs (training seeds). Its difference from another
system's is bootstrapped: every resample draws patients, the same for both systems, and runs, for
each system separately. Slices of one patient stay together (see `bootstrap`).
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxad.detector.detector import SCORE
from jaxad.evaluate.bootstrap import Counts
from jaxad.evaluate.metrics import Metric, is_measured, resampled
from jaxad.evaluate.positions import CORRECTED_SCORE

Scalars = Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
    """The scores that one run gave a test split; runs to compare have the same rows.

    Attributes:
        labels: 1 = anomalous.
        groups: number of each row's patient.
        columns: by name: `score`, and where available `score_position_corrected` and the components
            of the score.
    """

    labels: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    columns: dict[str, Scalars]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of metrics with its 95 % interval and two-sided bootstrap p-value."""

    value: float
    low: float
    high: float
    p_value: float

    def as_json(self) -> dict[str, float | None]:
        """Returns the fields; None for what no resample defines."""
        fields = dataclasses.asdict(self)
        return {name: None if math.isnan(value) else value for name, value in fields.items()}


def comparable(metrics: Iterable[Metric], runs: Sequence[ScoredSplit]) -> tuple[Metric, ...]:
    """Returns the metrics that are defined for every run, errors first."""
    return errors_first(
        metric
        for metric in metrics
        if all(is_measured(metric, run.labels, run.columns) for run in runs)
    )


def errors_first(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """Sorts metrics as tables show them: those for which lower is better come first."""
    return tuple(sorted(metrics, key=lambda metric: metric.higher_is_better))


def under_counts(
    metric: Metric, run: ScoredSplit, counts: Counts
) -> Float[np.ndarray, " resamples"]:
    """Returns the metric with each patient counted `counts` times; NaN where a class is missing."""
    values = run.columns[metric.column]
    return resampled(metric, run.labels, values, run.groups, counts.shape[1])(counts)


def value(metric: Metric, run: ScoredSplit) -> float:
    """Returns the metric of a run."""
    return float(under_counts(metric, run, np.ones((1, int(run.groups.max()) + 1)))[0])


def ensemble(runs: Sequence[ScoredSplit]) -> ScoredSplit:
    """Combines runs: each score is the mean over runs of its rank, in (0, 1].

    Runs score on different scales; ranks share one. Images are ranked within the split: no label is
    used, but the scores of an ensemble hold for this split only.
    """
    columns = {
        name: np.mean([scipy.stats.rankdata(run.columns[name]) for run in runs], axis=0)
        / len(runs[0].labels)
        for name in (SCORE, CORRECTED_SCORE)
        if all(name in run.columns for run in runs)
    }
    return ScoredSplit(runs[0].labels, runs[0].groups, columns)


def difference(
    metric: Metric,
    ours: Sequence[ScoredSplit],
    theirs: Sequence[ScoredSplit],
    resamples: int,
    *,
    resample_runs: bool = True,
) -> Difference:
    """Returns the mean over our runs minus the mean over theirs.

    With `resample_runs`, the interval covers the spread over training seeds: not at all if one side
    has a single run, roughly if it has two or three. Without it, the interval covers only the
    spread over patients, for the given runs.
    """
    rng = np.random.default_rng(0)
    size = int(ours[0].groups.max()) + 1
    counts = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float)

    def resampled_mean(runs: Sequence[ScoredSplit]) -> Float[np.ndarray, " resamples"]:
        of_runs = np.stack([under_counts(metric, run, counts) for run in runs])
        drawn = rng.integers(len(runs), size=(len(runs), resamples))
        mean = of_runs.mean(axis=0)
        if not resample_runs:
            return mean
        deviation = np.take_along_axis(of_runs, drawn, axis=0).mean(axis=0) - mean
        # The mean of n draws from n values has (n - 1) / n of the variance of a mean of n runs.
        return mean + deviation * math.sqrt(len(runs) / max(len(runs) - 1, 1))

    drawn = resampled_mean(ours) - resampled_mean(theirs)
    drawn = drawn[np.isfinite(drawn)]
    our_mean, their_mean = (np.mean([value(metric, run) for run in x]) for x in (ours, theirs))
    point = our_mean - their_mean
    if not len(drawn):
        return Difference(float(point), np.nan, np.nan, np.nan)
    low, high = np.percentile(drawn, [2.5, 97.5])
    # The added 1 keeps a p-value from a finite number of resamples above zero.
    tail = 1 + min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p_value = min(1.0, 2 * tail / (len(drawn) + 1))
    return Difference(float(point), float(low), float(high), float(p_value))
