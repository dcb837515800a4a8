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
    val_scores: Float[np.ndarray, " m"],
    val_positions: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " n"]:
    """Subtracts the mean score of validation images at each image's slice position.

    Means of training images would favour models that fit these closely. At a position that
    validation lacks, the mean over all validation scores is subtracted.
    """
    known, numbers = np.unique(val_positions, return_inverse=True)
    means = np.bincount(numbers, val_scores) / np.bincount(numbers)
    places = np.clip(np.searchsorted(known, positions), 0, len(known) - 1)
    expected = np.where(known[places] == positions, means[places], np.mean(val_scores))
    return scores - expected


def corrected_column(
    scores: Float[np.ndarray, " n"],
    split: Split,
    val_scores: Float[np.ndarray, " m"],
    val: Split,
    *,
    wanted: bool,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns `CORRECTED_SCORE` of the scores of a split; {} if it is unwanted or unavailable.

    It is unavailable where slices have no positions, or where validation has no slice at the
    positions of more than half of them.
    """
    if not wanted or split.positions is None or val.positions is None:
        return {}
    if not _is_covered(split.positions, val.positions):
        return {}
    arguments = (scores, split.positions, val_scores, val.positions)
    return {CORRECTED_SCORE: position_corrected(*arguments)}


def describe_correction(split: Split, val: Split) -> str:
    """Returns a line on what the scores of a split are compared with; "" without positions."""
    if split.positions is None or val.positions is None:
        return ""
    if not _is_covered(split.positions, val.positions):
        num_without = int(np.sum(~np.isin(split.positions, val.positions)))
        return (
            f"no position-corrected metrics: val has no slice at the position of {num_without:,} "
            f"of {len(split):,} slices."
        )
    per_position = len(val) / len(np.unique(val.positions))
    return (
        "position-corrected metrics subtract the mean score of val at a slice's position, where "
        f"val has {per_position:.1f} slices on average. If a position is not the same place in "
        "every patient, leave them out: --config.evaluate.position_correction=False"
    )


def _is_covered(positions: Int[np.ndarray, " n"], val_positions: Int[np.ndarray, " m"]) -> bool:
    """Tells whether validation has a slice at the position of at least half of the slices."""
    return bool(np.mean(np.isin(positions, val_positions)) >= 0.5)
