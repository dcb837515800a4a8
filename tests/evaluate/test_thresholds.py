"""Figures of thresholds: by hand and against scikit-learn."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxad.evaluate.thresholds import (
    all_positive_f1,
    at_threshold,
    best_f1,
    five_fold,
    folds,
    intervals,
)

LABELS = np.array([0, 0, 1, 0, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5])


def test_by_hand():
    found = at_threshold(LABELS, SCORES, 0.25)
    # Called: 0.3 (hit), 0.4 (alarm), 0.5 (hit).
    assert dataclasses.astuple(found) == pytest.approx((0.25, 4 / 5, 4 / 5, 1.0, 2 / 3))
    # A score equal to the threshold is not above it.
    assert at_threshold(LABELS, SCORES, 0.5).sensitivity == 0
    best = best_f1(LABELS, SCORES)
    assert best == at_threshold(LABELS, SCORES, best.threshold)
    assert best.threshold == pytest.approx(0.25) and best.f1 == pytest.approx(4 / 5)
    assert all_positive_f1(LABELS) == pytest.approx(2 * 2 / (2 + 5))


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.uniform(size=80) < 0.3).astype(np.int64)
    scores = np.round(rng.normal(size=80) + labels, 1)  # with ties
    best = best_f1(labels, scores)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    total = np.maximum(precision + recall, 1e-12)
    assert best.f1 == pytest.approx(np.max(2 * precision * recall / total))
    called = (scores > best.threshold).astype(int)
    assert best.f1 == pytest.approx(sklearn_metrics.f1_score(labels, called))
    assert best.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, called))
    assert best.sensitivity == pytest.approx(sklearn_metrics.recall_score(labels, called))
    assert best.specificity == pytest.approx(
        sklearn_metrics.recall_score(labels, called, pos_label=0)
    )


def test_constant_scores_are_all_called_anomalous():
    """The best F1 of a constant score is that of calling everything anomalous."""
    best = best_f1(LABELS, np.zeros(5))
    assert best.threshold < 0 and best.f1 == pytest.approx(all_positive_f1(LABELS))
    assert best.specificity == 0


def test_thresholds_between_neighbouring_floats():
    low = 1.0
    high = np.nextafter(low, 2.0)
    best = best_f1(np.array([0, 1]), np.array([low, high]))
    assert (best.threshold, best.f1) == (low, 1.0)


def test_one_class_only():
    found = at_threshold(np.zeros(3, np.int64), np.arange(3.0), 1.5)
    assert found.specificity == pytest.approx(2 / 3)
    assert np.isnan(found.sensitivity) and found.f1 == 0


def test_folds_are_two_to_eight_and_share_no_patient():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    labels = (rng.uniform(size=400) < 0.4).astype(np.int64)
    validations = []
    for validation, test in folds(labels, groups):
        assert len(validation) == 80 and len(test) == 320
        assert not set(groups[validation]) & set(groups[test])
        assert labels[validation].mean() == pytest.approx(labels.mean(), abs=0.05)
        validations.append(validation)
    assert sorted(np.concatenate(validations)) == list(range(400))  # every row validates once


def test_five_fold_chooses_its_threshold_on_other_patients():
    """For random scores, the F1 tuned on the test split is optimistic; this one is not."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 4)
    labels = np.tile([0, 0, 0, 1], 50)
    scores = rng.normal(size=200)
    found = five_fold(labels, scores, groups)
    assert found["mean"]["f1"] <= best_f1(labels, scores).f1
    assert found["mean"]["auroc"] == pytest.approx(0.5, abs=0.1)
    assert found["deviation"]["f1"] > 0
    perfect = five_fold(labels, labels + 0.1 * rng.uniform(size=200), groups)
    assert perfect["mean"]["auroc"] == perfect["mean"]["f1"] == 1.0
    assert five_fold(labels[:8], scores[:8], groups[:8]) is None  # two patients
    assert five_fold(np.zeros(200, np.int64), scores, groups) is None


def test_small_splits_have_no_folds():
    """Five folds need five patients and five slices of each class."""
    labels, scores = np.array([0] * 20 + [1] * 4), np.arange(24.0)
    assert five_fold(labels, scores, np.arange(24)) is None
    assert five_fold(1 - labels, scores, np.arange(24)) is None
    assert five_fold(np.tile([0, 1], 12), scores, np.arange(24) % 4) is None


def test_the_lowest_threshold_is_below_every_score():
    scores = np.array([2.0**60, 2.0**60])  # subtracting 1 does not change it
    best = best_f1(np.array([1, 1]), scores)
    assert best.threshold < scores[0] and best.f1 == 1.0


def test_intervals_are_of_the_figures_and_resample_patients():
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=400) < 0.4).astype(np.int64)
    scores = rng.normal(size=400) + labels
    found = intervals(labels, scores, 0.5, np.arange(400), 500)
    assert set(found) == {"f1", "accuracy", "sensitivity", "specificity"}
    plain = at_threshold(labels, scores, 0.5)
    for name, estimate in found.items():
        assert estimate.value == getattr(plain, name)
        assert estimate.low < estimate.value < estimate.high
    # Accuracy over 400 independent rows is binomial.
    deviation = np.sqrt(plain.accuracy * (1 - plain.accuracy) / 400)
    width = found["accuracy"].high - found["accuracy"].low
    assert width == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    # Each row four times: as many rows from a quarter of the patients; intervals twice as wide.
    copies = intervals(
        np.repeat(labels[:100], 4), np.repeat(scores[:100], 4), 0.5, np.repeat(np.arange(100), 4),
        500,
    )["accuracy"]  # fmt: skip
    assert copies.high - copies.low > 1.6 * width
