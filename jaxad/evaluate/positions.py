"""Correction of scores for slice position.

Central slices of a volume score differently from outer ones, whether or not they are anomalous.
Where positives are not balanced over positions, a detector of positions looks like one of
anomalies; where they are, the differences are noise. Both AUROCs are reported.
"""

import numpy as np
from jaxtyping import Float, Int

from jaxad.types import Split

#: Column of the corrected score in `scores.csv`.
CORRECTED_SCORE = "score_position_corrected"


def position_corrected(
    scores: Float[np.ndarray, " n"],
    positions: Int[np.ndarray, " n"],
    train_scores: Float[np.ndarray, " m"],
    train_positions: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " n"]:
    """Subtracts the mean training score at each image's slice position.

    At a position that training never saw, the mean over all training scores is subtracted.
    """
    known, numbers = np.unique(train_positions, return_inverse=True)
    means = np.bincount(numbers, train_scores) / np.bincount(numbers)
    places = np.clip(np.searchsorted(known, positions), 0, len(known) - 1)
    expected = np.where(known[places] == positions, means[places], np.mean(train_scores))
    return scores - expected


def corrected_column(
    scores: Float[np.ndarray, " n"],
    split: Split,
    train_scores: Float[np.ndarray, " m"],
    train: Split,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns `CORRECTED_SCORE` of the scores of a split; {} where slices have no positions."""
    if split.positions is None or train.positions is None:
        return {}
    arguments = (scores, split.positions, train_scores, train.positions)
    return {CORRECTED_SCORE: position_corrected(*arguments)}
