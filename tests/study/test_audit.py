"""Thresholds of the audit at equal rates of false positives."""

import numpy as np
import pytest

from jaxad.calibration.conformal import calibrate
from jaxad.evaluate.paired import ScoredSplit
from jaxad.study.audit import BEST, SAME_RATE, _figures


def test_the_same_rate_is_that_of_the_best_threshold():
    """With the test's normals as calibration, the two thresholds make almost the same calls."""
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(size=99), rng.normal(loc=1.0, size=60)
    labels = np.repeat([0, 1], [99, 60])
    run = ScoredSplit(labels, np.arange(159), {"score": np.concatenate([normal, anomalous])})
    figures = _figures(run, calibrate(normal, np.arange(99)), rate=0.05)
    best, same = figures[BEST], figures[SAME_RATE]
    assert 0.05 < 1 - best["specificity"] < 0.95
    # p-values are multiples of 1 / (99 + 1).
    assert same["specificity"] == pytest.approx(best["specificity"], abs=0.021)
    assert best["f1"] - 0.03 < same["f1"] <= best["f1"]


def test_a_perfect_threshold_has_the_smallest_rate_that_the_patients_support():
    scores = np.concatenate([np.arange(9.0), np.full(5, 100.0)])
    run = ScoredSplit(np.repeat([0, 1], [9, 5]), np.arange(14), {"score": scores})
    figures = _figures(run, calibrate(np.arange(9.0), np.arange(9)), rate=0.1)
    assert figures[BEST]["specificity"] == 1.0
    assert figures[SAME_RATE]["sensitivity"] == 1.0
