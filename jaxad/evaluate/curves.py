"""AUROC, partial AUROC, average precision and best Dice under many weightings of the same scores.

A bootstrap evaluates a metric under a thousand weightings of one set of scores: here they are rows
of a matrix over the sorted, distinct scores. The tests compare the values with scikit-learn's.
"""

import numpy as np
from jaxtyping import Float

#: Weight of the positive or the negative examples at each distinct score, ascending.
Weights = Float[np.ndarray, "resamples thresholds"]


def auroc(positive: Weights, negative: Weights) -> Float[np.ndarray, " resamples"]:
    """Returns P(positive > negative) + P(equal) / 2; NaN where a class is missing."""
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.sum(positive * (below + negative / 2), axis=1) / pairs


def _cumulative_from_top(positive: Weights, negative: Weights) -> tuple[Weights, Weights]:
    """Returns the weights of true and of false positives at each threshold, highest first."""
    return np.cumsum(positive[:, ::-1], axis=1), np.cumsum(negative[:, ::-1], axis=1)


def average_precision(positive: Weights, negative: Weights) -> Float[np.ndarray, " resamples"]:
    """Sums precision times the gain in recall over thresholds; NaN without positives."""
    true, false = _cumulative_from_top(positive, negative)
    with np.errstate(invalid="ignore"):
        precision = true / (true + false)
        gain = positive[:, ::-1] / true[:, -1:]
    # Precision is 0 / 0 above the first example; the gain is zero there.
    return np.sum(np.where(gain > 0, precision * gain, gain), axis=1)


def best_dice(positive: Weights, negative: Weights) -> Float[np.ndarray, " resamples"]:
    """Returns the largest 2 TP / (2 TP + FP + FN) over thresholds; NaN without positives."""
    true, false = _cumulative_from_top(positive, negative)
    total = true[:, -1:]
    with np.errstate(invalid="ignore"):
        dice = 2 * true / (true + false + total)
    return np.where(total[:, 0] > 0, np.max(np.nan_to_num(dice), axis=1), np.nan)


def partial_auroc(
    positive: Weights, negative: Weights, limit: float = 0.3
) -> Float[np.ndarray, " resamples"]:
    """Returns the area under the ROC curve up to a false-positive rate, divided by that rate."""
    true, false = _cumulative_from_top(positive, negative)
    with np.errstate(invalid="ignore"):
        hits, alarms = (np.pad(total / total[:, -1:], ((0, 0), (1, 0))) for total in (true, false))
        widths = np.diff(np.minimum(alarms, limit), axis=1)
        # The step across the limit counts up to the limit, along a straight line.
        shares = np.where(widths > 0, widths / np.diff(alarms, axis=1), 0.0)
    heights = hits[:, :-1] + shares * np.diff(hits, axis=1) / 2
    return np.sum(widths * heights, axis=1) / limit
