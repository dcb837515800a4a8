"""Metrics of decisions by a threshold: AE-FLOW's protocol and its audit.

AE-FLOW reports F1, accuracy, sensitivity and specificity at the threshold whose F1 is best on the
test set itself, which is not available in use. The audit adds these metrics at a threshold chosen
on a validation fold (its Appendix A, here with no patient in both folds) and at one chosen from
normal images alone, and the F1 of calling everything anomalous.

An image is called anomalous if its score is above the threshold.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from jaxad.evaluate.bootstrap import Counts, Estimate, Statistic, bootstrap_interval

Labels = Int[np.ndarray, " n"]
Scalars = Float[np.ndarray, " n"]
GroupNumbers = Int[np.ndarray, " n"]
Rows = Int[np.ndarray, " rows"]

NUM_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Decision:
    """The figures of a threshold on labelled scores; NaN where a figure is undefined.

    Attributes:
        threshold: a score above it is called anomalous.
        f1: the F1 score of the anomalous class; 0 where nothing is called anomalous.
        accuracy: share of correct calls.
        sensitivity: share of the anomalous rows that are called anomalous.
        specificity: share of the normal rows that are called normal.
    """

    threshold: float
    f1: float
    accuracy: float
    sensitivity: float
    specificity: float


#: Figures from numbers of true and false positives, anomalous and normal rows (each any shape).
_FIGURES: Mapping[str, Callable[..., Any]] = {
    "f1": lambda hits, alarms, positives, negatives: 2 * hits / (positives + hits + alarms),
    "accuracy": lambda hits, alarms, positives, negatives: (
        (hits + negatives - alarms) / (positives + negatives)
    ),
    "sensitivity": lambda hits, alarms, positives, negatives: hits / positives,
    "specificity": lambda hits, alarms, positives, negatives: (negatives - alarms) / negatives,
}


def _counts(labels: Labels, scores: Scalars, threshold: float) -> Bool[np.ndarray, "n 4"]:
    """Marks true positives, false positives, anomalous rows and normal rows."""
    called, anomalous = scores > threshold, labels == 1
    return np.stack([called & anomalous, called & ~anomalous, anomalous, ~anomalous], axis=1)


def at_threshold(labels: Labels, scores: Scalars, threshold: float) -> Decision:
    """Returns the figures at a given threshold."""
    totals = _counts(labels, scores, threshold).sum(axis=0).astype(float)
    with np.errstate(invalid="ignore"):
        figures = {name: float(figure(*totals)) for name, figure in _FIGURES.items()}
    return Decision(threshold=float(threshold), **figures)


def intervals(
    labels: Labels, scores: Scalars, threshold: float, groups: GroupNumbers, resamples: int
) -> dict[str, Estimate]:
    """Returns the figures of `at_threshold` with intervals over patients at a fixed threshold."""
    counts = _counts(labels, scores, threshold)
    table = np.zeros((int(groups.max()) + 1, counts.shape[1]))
    np.add.at(table, groups, counts)

    def statistic(name: str) -> Statistic:
        def figure(drawn: Counts) -> Float[np.ndarray, " resamples"]:
            with np.errstate(invalid="ignore"):
                return _FIGURES[name](*(drawn @ table).T)

        return figure

    values = dataclasses.asdict(at_threshold(labels, scores, threshold))
    return {
        name: Estimate(values[name], *bootstrap_interval(statistic(name), len(table), resamples))
        for name in _FIGURES
    }


def best_f1(labels: Labels, scores: Scalars) -> Decision:
    """Returns the figures at the threshold of the best F1 on the same labels.

    AE-FLOW, Section 3.3. Candidates lie half way between neighbouring scores and just below the
    lowest one; of equally good thresholds the highest is taken.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order] == 1)
    # After the last of each run of equal scores.
    ends = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))
    positives = int(hits[-1]) if len(hits) else 0
    f1 = 2 * hits[ends] / np.maximum(positives + ends + 1, 1)
    end = int(ends[np.argmax(f1)])
    is_last = end + 1 == len(ranked)
    below = np.nextafter(ranked[end], -np.inf) if is_last else ranked[end + 1]
    half_way = 0.5 * (ranked[end] + below)
    # No float lies between the closest neighbours.
    threshold = half_way if half_way < ranked[end] else below
    return at_threshold(labels, scores, float(threshold))


def all_positive_f1(labels: Labels) -> float:
    """Returns the F1 of calling everything anomalous."""
    return at_threshold(labels, np.zeros(len(labels)), -1.0).f1


def folds(labels: Labels, groups: GroupNumbers, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
    """Yields the validation and test rows of AE-FLOW's Appendix A: five splits, 2 to 8.

    No patient is in both; classes are as balanced as whole patients allow.

    Raises:
        ValueError: there are fewer patients than folds.
    """
    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    for test, validation in splitter.split(np.zeros(len(labels)), labels, groups):
        yield validation, test


def five_fold(
    labels: Labels, scores: Scalars, groups: GroupNumbers
) -> dict[str, dict[str, float]] | None:
    """Evaluates each fold's test rows at the threshold that is best on its validation rows.

    Returns:
        `mean` and `deviation` (standard deviation of the sample) over folds, of `auroc` and the
        figures of a `Decision`; None with too few patients or slices of a class, or if a fold has
        one class only.
    """
    if min(len(np.unique(groups)), *np.bincount(labels, minlength=2)) < NUM_FOLDS:
        return None
    rows = []
    for validation, test in folds(labels, groups):
        if min(len(np.unique(labels[part])) for part in (validation, test)) < 2:
            return None
        threshold = best_f1(labels[validation], scores[validation]).threshold
        figures = dataclasses.asdict(at_threshold(labels[test], scores[test], threshold))
        rows.append({"auroc": float(roc_auc_score(labels[test], scores[test])), **figures})
    by_figure = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "mean": {name: float(np.mean(values)) for name, values in by_figure.items()},
        "deviation": {name: float(np.std(values, ddof=1)) for name, values in by_figure.items()},
    }
