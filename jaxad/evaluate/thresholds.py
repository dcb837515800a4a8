"""From a score to a decision, and what its figures are worth: AE-FLOW's protocol and its audit.

AE-FLOW reports F1, accuracy, sensitivity and specificity at the threshold whose F1 is best on the
test set itself. Nobody has that threshold: beside it stand the figures at one chosen on a
validation fold (its Appendix A, here with no patient in both folds) and at one chosen from normal
images alone, and the F1 of calling everything anomalous.

An image is called anomalous where its score is above the threshold.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from jaxad.evaluate.metrics import Estimate, group_interval

Labels = Int[np.ndarray, " n"]
Scalars = Float[np.ndarray, " n"]
GroupNumbers = Int[np.ndarray, " n"]
Rows = Int[np.ndarray, " rows"]

NUM_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a threshold makes of labelled scores; NaN where a figure is undefined.

    Attributes:
        threshold: above it a score is anomalous.
        f1: of the anomalous class; 0 where nothing is called anomalous.
        accuracy: share of right calls.
        sensitivity: share of the anomalous that are called so.
        specificity: share of the normal that are not.
    """

    threshold: float
    f1: float
    accuracy: float
    sensitivity: float
    specificity: float


#: True and false positives, anomalous and normal rows (each any shape) to a figure.
_FIGURES: Mapping[str, Callable[..., Any]] = {
    "f1": lambda hits, alarms, positives, negatives: 2 * hits / (positives + hits + alarms),
    "accuracy": lambda hits, alarms, positives, negatives: (
        (hits + negatives - alarms) / (positives + negatives)
    ),
    "sensitivity": lambda hits, alarms, positives, negatives: hits / positives,
    "specificity": lambda hits, alarms, positives, negatives: (negatives - alarms) / negatives,
}


def _counts(labels: Labels, scores: Scalars, threshold: float) -> Bool[np.ndarray, "n 4"]:
    """Whether each row is a true positive, a false positive, anomalous, normal."""
    called, anomalous = scores > threshold, labels == 1
    return np.stack([called & anomalous, called & ~anomalous, anomalous, ~anomalous], axis=1)


def at_threshold(labels: Labels, scores: Scalars, threshold: float) -> Decision:
    """The figures at a threshold that came from elsewhere."""
    totals = _counts(labels, scores, threshold).sum(axis=0).astype(float)
    with np.errstate(invalid="ignore"):
        found = {name: float(figure(*totals)) for name, figure in _FIGURES.items()}
    return Decision(threshold=float(threshold), **found)


def intervals(
    labels: Labels, scores: Scalars, threshold: float, groups: GroupNumbers, resamples: int
) -> dict[str, Estimate]:
    """The figures of `at_threshold` with intervals over patients, the threshold being given."""
    counts = _counts(labels, scores, threshold)
    table = np.zeros((int(groups.max()) + 1, counts.shape[1]))
    np.add.at(table, groups, counts)

    def of_draws(name: str) -> Callable[[Float[np.ndarray, "resamples groups"]], np.ndarray]:
        def figure(drawn: Float[np.ndarray, "resamples groups"]) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                return _FIGURES[name](*(drawn @ table).T)

        return figure

    values = dataclasses.asdict(at_threshold(labels, scores, threshold))
    return {
        name: Estimate(values[name], *group_interval(of_draws(name), len(table), resamples))
        for name in _FIGURES
    }


def best_f1(labels: Labels, scores: Scalars) -> Decision:
    """The figures at the threshold of the best F1 on these very labels (AE-FLOW, Section 3.3).

    Thresholds are half way between neighbouring scores, and just below the lowest; of several that
    are best the highest.
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
    # Neighbours so near that nothing lies between them.
    threshold = half_way if half_way < ranked[end] else below
    return at_threshold(labels, scores, float(threshold))


def all_positive_f1(labels: Labels) -> float:
    """The F1 of calling everything anomalous."""
    return at_threshold(labels, np.zeros(len(labels)), -1.0).f1


def folds(labels: Labels, groups: GroupNumbers, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
    """Validation and test rows of AE-FLOW's Appendix A: 2 to 8, five times, class balance kept.

    No patient is in both; classes are balanced as far as whole patients allow.

    Raises:
        ValueError: fewer patients than folds.
    """
    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    for test, validation in splitter.split(np.zeros(len(labels)), labels, groups):
        yield validation, test


@dataclasses.dataclass(frozen=True)
class FiveFold:
    """Mean and standard deviation (of the sample) over folds, by figure.

    Attributes:
        mean: `auroc` and the figures of a `Decision` on the test rows.
        deviation: the same.
    """

    mean: dict[str, float]
    deviation: dict[str, float]


def five_fold(labels: Labels, scores: Scalars, groups: GroupNumbers) -> FiveFold | None:
    """The figures on each fold's test rows at the threshold that is best on its validation rows.

    None where there are too few patients or slices of a class, or a fold has one class alone.
    """
    if min(len(np.unique(groups)), *np.bincount(labels, minlength=2)) < NUM_FOLDS:
        return None
    rows = []
    for validation, test in folds(labels, groups):
        if min(len(np.unique(labels[part])) for part in (validation, test)) < 2:
            return None
        threshold = best_f1(labels[validation], scores[validation]).threshold
        found = dataclasses.asdict(at_threshold(labels[test], scores[test], threshold))
        rows.append({"auroc": float(roc_auc_score(labels[test], scores[test])), **found})
    return FiveFold(
        mean={name: float(np.mean([row[name] for row in rows])) for name in rows[0]},
        deviation={name: float(np.std([row[name] for row in rows], ddof=1)) for name in rows[0]},
    )
