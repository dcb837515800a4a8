"""AUROC, its part, average precision and best Dice of many weightings of one set of scores at once.

A bootstrap asks for the same metric under a thousand weightings of the same scores: here they are
rows of a matrix, sorted once. The tests hold them to scikit-learn's numbers.
"""

import numpy as np
from jaxtyping import Float

#: Weight of the positive and of the negative examples at each distinct score, ascending.
Weights = Float[np.ndarray, "resamples thresholds"]


def auroc(positive: Weights, negative: Weights) -> Float[np.ndarray, " resamples"]:
    """P(positive > negative) + P(equal) / 2 under the weights; NaN where a class is missing."""
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.sum(positive * (below + negative / 2), axis=1) / pairs


def _cumulative_from_top(positive: Weights, negative: Weights) -> tuple[Weights, Weights]:
    """Weights of true and of false positives at each threshold, from the highest score down."""
    return np.cumsum(positive[:, ::-1], axis=1), np.cumsum(negative[:, ::-1], axis=1)


def average_precision(positive: Weights, negative: Weights) -> Float[np.ndarray, " resamples"]:
    """The sum over thresholds of precision times the gain in recall; NaN without positives."""
    true, false = _cumulative_from_top(positive, negative)
    with np.errstate(invalid="ignore"):
        precision = true / (true + false)
        gain = positive[:, ::-1] / true[:, -1:]
    # Precision is 0 / 0 above the first example; the gain is zero there.
    return np.sum(np.where(gain > 0, precision * gain, gain), axis=1)


def best_dice(positive: Weights, negative: Weights) -> Float[np.ndarray, " resamples"]:
    """The largest 2 TP / (2 TP + FP + FN) over thresholds; NaN without positives."""
    true, false = _cumulative_from_top(positive, negative)
    total = true[:, -1:]
    with np.errstate(invalid="ignore"):
        dice = 2 * true / (true + false + total)
    return np.where(total[:, 0] > 0, np.max(np.nan_to_num(dice), axis=1), np.nan)


def partial_auroc(
    positive: Weights, negative: Weights, limit: float = 0.3
) -> Float[np.ndarray, " resamples"]:
    """The area under the ROC curve up to a rate of false positives, divided by that rate."""
    true, false = _cumulative_from_top(positive, negative)
    with np.errstate(invalid="ignore"):
        hits, alarms = (np.pad(total / total[:, -1:], ((0, 0), (1, 0))) for total in (true, false))
        widths = np.diff(np.minimum(alarms, limit), axis=1)
        # The step that crosses the limit counts up to it, on a straight line.
        shares = np.where(widths > 0, widths / np.diff(alarms, axis=1), 0.0)
    heights = hits[:, :-1] + shares * np.diff(hits, axis=1) / 2
    return np.sum(widths * heights, axis=1) / limit
