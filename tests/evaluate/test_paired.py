"""Paired comparison: values against scikit-learn, intervals and p-values against known cases."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxad.evaluate import paired
from jaxad.evaluate.metrics import AUROC, AUROC_CORRECTED, AVERAGE_PRECISION, MSE
from jaxad.evaluate.paired import ScoredSplit

PATIENTS, SLICES = 40, 6


def split(separation, seed, patient_effect=0.0):
    """Returns scores that are `separation` standard deviations higher for anomalous slices."""
    layout = np.random.default_rng(0)
    labels = (layout.uniform(size=PATIENTS * SLICES) < 0.4).astype(int)
    groups = np.repeat(np.arange(PATIENTS), SLICES)
    effect = patient_effect * layout.normal(size=PATIENTS)[groups]
    noise = np.random.default_rng(seed).normal(size=len(labels))
    scores = noise + effect + separation * labels
    return ScoredSplit(labels, groups, {"score": scores, "mse": np.exp(scores)})


def test_metrics_of_a_run_equal_scikit_learns():
    run = split(1.0, 1)
    scores = run.columns["score"]
    assert paired.value(AUROC, run) == pytest.approx(roc_auc_score(run.labels, scores))
    assert paired.value(AVERAGE_PRECISION, run) == pytest.approx(
        average_precision_score(run.labels, scores)
    )
    # MSE is over normal slices.
    assert paired.value(MSE, run) == pytest.approx(run.columns["mse"][run.labels == 0].mean())


def test_a_count_is_a_repetition_of_the_patient():
    run = split(1.0, 1)
    counts = np.random.default_rng(2).integers(0, 4, size=(1, PATIENTS)).astype(float)
    rows = np.repeat(np.arange(len(run.labels)), counts[0].astype(int)[run.groups])
    labels, scores = run.labels[rows], run.columns["score"][rows]
    found = paired.under_counts(AUROC, run, counts)[0]
    assert found == pytest.approx(roc_auc_score(labels, scores))
    found = paired.under_counts(MSE, run, counts)[0]
    assert found == pytest.approx(run.columns["mse"][rows][labels == 0].mean())


def test_a_system_does_not_differ_from_itself():
    runs = [split(1.0, 1)]
    found = paired.difference(AUROC, runs, runs, 200)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_better_system_has_a_significant_difference_of_the_right_sign():
    good, poor = [split(2.0, s) for s in (1, 2)], [split(0.2, s) for s in (3, 4)]
    found = paired.difference(AUROC, good, poor, 1000)
    # AUROC of two unit Gaussians d apart is Phi(d / sqrt 2): .921 and .556.
    assert found.value == pytest.approx(0.921 - 0.556, abs=0.05)
    assert 0 < found.low < found.value < found.high
    assert found.p_value == pytest.approx(2 / 1001)  # no resample at or below zero
    back = paired.difference(AUROC, poor, good, 1000)
    assert back.value == pytest.approx(-found.value)
    assert back.high < 0 and back.p_value == found.p_value


def test_pairing_removes_variation_that_both_systems_share():
    """A small difference is significant although patients vary much."""
    ours = split(1.0, 1, patient_effect=2.0)
    lower = ours.columns["score"] - 0.3 * ours.labels
    theirs = ScoredSplit(ours.labels, ours.groups, {"score": lower})
    found = paired.difference(AUROC, [ours], [theirs], 500)
    alone = [
        paired.under_counts(AUROC, ours, np.random.default_rng(3).multinomial(
            PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=500).astype(float))
    ]  # fmt: skip
    spread = np.subtract(*np.percentile(alone[0], [97.5, 2.5]))
    assert found.high - found.low < 0.5 * spread
    assert found.low > 0


def seeds(first, count, spread):
    """Returns runs of one system whose separation varies by `spread` standard deviations."""
    moves = spread * np.random.default_rng(first).normal(size=count)
    return [split(1.0 + move, 1000 * first + n) for n, move in enumerate(moves)]


@pytest.mark.parametrize(
    ("count", "spread", "most"),
    [
        # Of 60 pairs of equal systems 3 are expected below .05; more than 8 has p < .004.
        (1, 0.0, 8),
        (5, 0.1, 8),
        # Three seeds underestimate their spread: the interval is too narrow by a third.
        (3, 0.3, 15),
    ],
)
def test_equal_systems_rarely_differ_significantly(count, spread, most):
    below = [
        paired.difference(
            AUROC, seeds(2 * n, count, spread), seeds(2 * n + 1, count, spread), 200
        ).p_value
        < 0.05
        for n in range(60)
    ]
    assert sum(below) <= most


def test_the_spread_of_seeds_widens_the_interval():
    """Only seeds differ; patients are the same."""
    alike = [split(1.0, 1)] * 4
    apart = [split(separation, 1) for separation in (0.2, 0.7, 1.3, 1.8)]
    theirs = [split(0.0, 9)]
    narrow = paired.difference(AUROC, alike, theirs, 500)
    wide = paired.difference(AUROC, apart, theirs, 500)
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_metrics_that_a_split_does_not_have():
    run = split(1.0, 1)
    metrics = (AUROC, AUROC_CORRECTED, MSE)
    assert paired.comparable(metrics, [run]) == (MSE, AUROC)  # errors first
    normal = ScoredSplit(np.zeros_like(run.labels), run.groups, run.columns)
    assert paired.comparable(metrics, [run, normal]) == (MSE,)


def test_an_ensemble_is_the_mean_of_ranks_and_averages_noise_out():
    runs = [split(1.0, seed) for seed in range(5)]
    # One run has another scale, which ranks remove.
    loud = ScoredSplit(
        runs[0].labels, runs[0].groups, {"score": np.exp(3 * runs[0].columns["score"])}
    )
    together = paired.ensemble([loud, *runs[1:]])
    expected = np.mean(
        [np.argsort(np.argsort(run.columns["score"])) + 1 for run in runs], axis=0
    ) / len(runs[0].labels)
    np.testing.assert_allclose(together.columns["score"], expected)
    assert set(together.columns) == {"score"}  # an ensemble has no reconstruction
    # A mean of five has the same separation, and noise smaller by the root of five.
    alone = np.mean([paired.value(AUROC, run) for run in runs])
    assert paired.value(AUROC, together) > alone + 0.1
    found = paired.difference(AUROC, [together], runs, 200, resample_runs=False)
    assert found.value == pytest.approx(paired.value(AUROC, together) - alone)
    assert found.low > 0 and found.p_value < 0.05
    # Only patients are resampled.
    counts = np.random.default_rng(0).multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), 200)
    drawn = paired.under_counts(AUROC, together, counts.astype(float)) - np.mean(
        [paired.under_counts(AUROC, run, counts.astype(float)) for run in runs], axis=0
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
