"""Correction for slice position: a pure position effect disappears, an anomaly stays."""

import numpy as np
import pytest
import sklearn.metrics

from jaxad.evaluate.positions import corrected_column, describe_correction, position_corrected
from jaxad.types import Split


def test_each_score_loses_the_validation_mean_of_its_position():
    # Validation means: 2 at position 10, 7 at position 20.
    corrected = position_corrected(
        scores=np.array([5.0, 5.0, 1.0]),
        positions=np.array([20, 10, 20]),
        val_scores=np.array([1.0, 3.0, 7.0]),
        val_positions=np.array([10, 10, 20]),
    )
    np.testing.assert_allclose(corrected, [-2.0, 3.0, -6.0])


@pytest.mark.parametrize("position", [-1, 0, 15, 99], ids=["least", "below", "between", "above"])
def test_a_position_that_validation_lacks_takes_the_mean_of_all_its_scores(position):
    corrected = position_corrected(
        scores=np.array([5.0, 5.0]),
        positions=np.array([position, 20]),
        val_scores=np.array([1.0, 3.0, 8.0]),  # mean 4
        val_positions=np.array([10, 10, 20]),
    )
    np.testing.assert_allclose(corrected, [1.0, -3.0])


def test_a_score_that_only_depends_on_position_becomes_chance(rng):
    """Anomalies favour the upper slices; a score that is the slice index looks like a detector."""
    positions = rng.integers(0, 20, 2000)
    labels = rng.uniform(size=2000) < positions / 20
    scores = 3.0 * positions
    val_positions = np.arange(20)
    assert sklearn.metrics.roc_auc_score(labels, scores) > 0.75
    corrected = position_corrected(scores, positions, 3.0 * val_positions, val_positions)
    assert sklearn.metrics.roc_auc_score(labels, corrected) == 0.5


def test_the_effect_of_anomalies_stays(rng):
    positions = np.tile(np.arange(20), 10)
    labels = np.repeat([0, 1], 100)
    effect = rng.normal(scale=10.0, size=20)
    scores = effect[positions] + labels  # the position outweighs the anomaly ten times
    assert sklearn.metrics.roc_auc_score(labels, scores) < 0.7
    corrected = position_corrected(scores, positions, effect, np.arange(20))
    assert sklearn.metrics.roc_auc_score(labels, corrected) == 1.0


def test_the_correction_is_learnt_from_validation_scores_alone():
    arguments = {
        "positions": np.array([1, 1]),
        "val_scores": np.array([2.0]),
        "val_positions": np.array([1]),
    }
    alone = position_corrected(scores=np.array([5.0, 6.0]), **arguments)
    with_outlier = position_corrected(scores=np.array([5.0, 600.0]), **arguments)
    assert alone[0] == with_outlier[0] == 3.0


def split_at(*positions):
    count = len(positions)
    names = tuple(map(str, range(count)))
    images, labels = np.zeros((count, 1, 1, 1), np.uint8), np.zeros(count, np.int32)
    return Split(images, labels, names, names, positions=np.array(positions))


@pytest.mark.parametrize(
    ("positions", "wanted", "is_corrected"),
    [((1, 2, 8, 9), True, True), ((1, 2, 8, 9), False, False), ((1, 7, 8, 9), True, False)],
    ids=["half are in validation", "switched off", "most are not in validation"],
)
def test_there_is_no_correction_where_validation_lacks_most_positions(
    positions, wanted, is_corrected
):
    split, val = split_at(*positions), split_at(1, 1, 1, 2)
    column = corrected_column(np.arange(4.0), split, np.arange(4.0), val, wanted=wanted)
    assert bool(column) == is_corrected


def test_the_correction_is_described():
    val = split_at(1, 1, 1, 2)
    line = describe_correction(split_at(1, 2, 9), val)
    assert "val has 2.0 slices on average" in line  # four slices at two positions
    assert line.endswith("leave them out: --config.evaluate.position_correction=False")
    line = describe_correction(split_at(1, 8, 9), val)
    assert line == (
        "no position-corrected metrics: val has no slice at the position of 2 of 3 slices."
    )
