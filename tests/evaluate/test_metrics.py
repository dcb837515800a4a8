"""Metrics: values against scikit-learn, intervals against theory."""

import json
import math

import numpy as np
import pytest
import sklearn.metrics

from jaxad.evaluate import metrics
from jaxad.evaluate.bootstrap import Estimate
from jaxad.evaluate.metrics import AUROC, AVERAGE_PRECISION, METRICS, MSE
from jaxad.evaluate.pixel_metrics import estimate_pixels, region_weights
from jaxad.types import group_numbers

RESAMPLES = 400


def _scored(rng, count, *, shift=1.0, decimals=2):
    """Returns labels and scores with an AUROC of about .76, with ties."""
    labels = (rng.uniform(size=count) < 0.3).astype(np.int64)
    scores = np.round(rng.normal(size=count) + shift * labels, decimals)
    return labels, scores


def _own_groups(count):
    return np.arange(count, dtype=np.int64)


def _mean(values, groups, resamples):
    """Estimates the mean of the values of normal images."""
    return metrics.estimate(MSE, np.zeros(len(values), np.int64), values, groups, resamples)


def _width(estimate):
    return estimate.high - estimate.low


# --- Values.

VALUES = {
    AUROC: sklearn.metrics.roc_auc_score,
    AVERAGE_PRECISION: sklearn.metrics.average_precision_score,
}
NAMES = [metric.name for metric in VALUES]


@pytest.mark.parametrize("metric", VALUES, ids=NAMES)
def test_value_equals_scikit_learns(rng, metric):
    labels, scores = _scored(rng, 200, decimals=1)
    estimate = metrics.estimate(metric, labels, scores, _own_groups(200), 50)
    assert estimate.value == VALUES[metric](labels, scores)


@pytest.mark.parametrize("metric", VALUES, ids=NAMES)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3], ids=["unit", "small", "large"])
def test_auc_comes_from_scores_and_not_from_thresholded_labels(rng, metric, scale):
    """A published reproduction computed AUC from 0/1 predictions, which have no order."""
    labels, scores = _scored(rng, 200, decimals=9)
    value = metrics.estimate(metric, labels, scale * scores, _own_groups(200), 50).value
    for quantile in (0.3, 0.5, 0.7, 0.9):
        predicted = (scores > np.quantile(scores, quantile)).astype(int)
        assert VALUES[metric](labels, predicted) < value - 0.02
    assert value == VALUES[metric](labels, scores)


def test_mean_is_over_rows_and_not_over_groups():
    # Group 0 has three rows: the mean of rows is 9 / 4, the mean of group means 3.5.
    estimate = _mean(np.array([1.0, 1.0, 1.0, 6.0]), np.array([0, 0, 0, 1]), 50)
    assert estimate.value == 9 / 4
    assert estimate.low == 1.0
    assert estimate.high == 6.0


def test_mean_of_some_groups_only():
    """Normal rows need not hold every group number."""
    values = np.array([1.0, 3.0, 5.0])
    sparse = _mean(values, np.array([4, 7, 9]), 50)
    assert sparse == _mean(values, np.array([0, 1, 2]), 50)


def test_group_numbers_are_consecutive_and_equal_for_equal_names():
    numbers = group_numbers(("eve", "ann", "eve", "bob"))
    np.testing.assert_array_equal(numbers, [2, 0, 2, 1])
    assert numbers.dtype == np.int64


# --- Intervals.


@pytest.mark.parametrize("metric", VALUES, ids=NAMES)
def test_interval_contains_the_value_and_narrows_with_the_root_of_the_groups(rng, metric):
    widths = []
    for count in (250, 4000):
        labels, scores = _scored(rng, count)
        estimate = metrics.estimate(metric, labels, scores, _own_groups(count), RESAMPLES)
        assert estimate.low < estimate.value < estimate.high
        widths.append(_width(estimate))
    # 16 times the groups: a quarter of the width. The 2.5 and 97.5 % points of 400 resamples
    # and the class balance of 250 rows leave some 10 % each.
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.25)


def test_interval_of_a_mean_agrees_with_theory(rng):
    """Equal groups of four equal rows: half-width 1.96 s / sqrt(G), s over groups, not rows."""
    num_groups, rows = 150, 4
    of_groups = rng.normal(size=num_groups)
    values = np.repeat(of_groups, rows)
    groups = np.repeat(_own_groups(num_groups), rows)
    estimate = _mean(values, groups, 4000)
    half_width = 1.96 * of_groups.std() / math.sqrt(num_groups)
    assert _width(estimate) / 2 == pytest.approx(half_width, rel=0.1)
    assert (estimate.low + estimate.high) / 2 == pytest.approx(estimate.value, abs=0.1 * half_width)


def test_intervals_have_their_nominal_coverage(rng):
    """About 95 % of the intervals of 200 data sets contain the true mean, zero."""
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.normal(size=40), 3)
        estimate = _mean(values, np.repeat(_own_groups(40), 3), 300)
        covered += estimate.low <= 0.0 <= estimate.high
    # Binomial(200, .95) is 190 with a standard deviation of 3; a percentile interval of 40
    # groups is a little too narrow (about .935). Rows taken for independent give some .74.
    assert 190 - 5 * 3 <= covered <= 199


@pytest.mark.parametrize("metric", VALUES, ids=NAMES)
def test_copies_within_a_patient_widen_the_interval(rng, metric):
    """Four copies of a row add no information: by patient, the width is that of single rows."""
    labels, scores = _scored(rng, 150)
    copied_labels, copied_scores = np.repeat(labels, 4), np.repeat(scores, 4)
    single = metrics.estimate(metric, labels, scores, _own_groups(150), RESAMPLES)
    patients = np.repeat(_own_groups(150), 4)
    clustered = metrics.estimate(metric, copied_labels, copied_scores, patients, RESAMPLES)
    independent = metrics.estimate(
        metric, copied_labels, copied_scores, _own_groups(600), RESAMPLES
    )
    assert _width(clustered) == pytest.approx(_width(single), rel=1e-9)
    # 1 / sqrt(4) in theory.
    assert _width(independent) / _width(clustered) == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("metric", VALUES, ids=NAMES)
def test_estimates_are_deterministic_and_do_not_depend_on_the_order_of_rows(rng, metric):
    labels, scores = _scored(rng, 120)
    groups = rng.integers(0, 30, 120)
    groups = np.unique(groups, return_inverse=True)[1]
    first = metrics.estimate(metric, labels, scores, groups, 100)
    assert metrics.estimate(metric, labels, scores, groups, 100) == first
    order = rng.permutation(120)
    shuffled = metrics.estimate(metric, labels[order], scores[order], groups[order], 100)
    np.testing.assert_allclose(
        [shuffled.value, shuffled.low, shuffled.high],
        [first.value, first.low, first.high],
        rtol=1e-12,
    )


def test_resamples_without_a_class_are_left_out_of_the_interval():
    """One positive patient of four: (3/4)^4 = 32 % of the resamples have no positive."""
    labels = np.array([1, 0, 0, 0])
    estimate = metrics.estimate(
        AUROC, labels, np.array([0.7, 0.2, 0.9, 0.1]), _own_groups(4), RESAMPLES
    )
    assert estimate.value == pytest.approx(2 / 3)
    assert (estimate.low, estimate.high) == (0.0, 1.0)


# --- What is undefined.


@pytest.mark.parametrize("metric", VALUES, ids=NAMES)
@pytest.mark.parametrize("label", [0, 1])
def test_a_split_of_one_class_is_undefined(rng, metric, label):
    labels = np.full(6, label, np.int64)
    estimate = metrics.estimate(metric, labels, rng.normal(size=6), _own_groups(6), 50)
    assert all(math.isnan(value) for value in (estimate.value, estimate.low, estimate.high))
    assert estimate.as_json() == {"value": None, "low": None, "high": None}


def test_one_patient_has_a_value_and_no_interval():
    estimate = metrics.estimate(AUROC, np.array([0, 1]), np.array([0.1, 0.2]), np.array([0, 0]), 50)
    assert estimate.as_json() == {"value": 1.0, "low": None, "high": None}


def test_mean_of_nothing_is_undefined():
    empty = _mean(np.zeros(0), np.zeros(0, np.int64), 50)
    assert empty.as_json() == {"value": None, "low": None, "high": None}


def test_json_holds_plain_numbers():
    estimate = Estimate(np.float64(0.5), 0.25, np.inf)
    assert json.dumps(estimate.as_json()) == '{"value": 0.5, "low": 0.25, "high": null}'


# --- Pixels.


def _maps(rng, count=12, size=8):
    """Returns masks with a square in every second image, and maps that are higher there."""
    masks = np.zeros((count, size, size), np.uint8)
    masks[::2, 2:5, 3:6] = 1
    maps = np.round(rng.normal(size=masks.shape) + 1.5 * masks, 2)
    return masks, maps


def test_pixel_values_equal_scikit_learns_and_brute_force_dice(rng):
    masks, maps = _maps(rng)
    found = estimate_pixels(METRICS, masks, maps, _own_groups(12), 50)
    labels, scores = masks.ravel(), maps.ravel()
    dice = [sklearn.metrics.f1_score(labels, scores >= level) for level in np.unique(scores)]
    assert {name: found[name].value for name in found if name != "aupro"} == {
        "pixel_auroc": pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), rel=1e-12),
        "pixel_average_precision": pytest.approx(
            sklearn.metrics.average_precision_score(labels, scores), rel=1e-12
        ),
        "best_dice": pytest.approx(max(dice), rel=1e-12),
    }


def test_best_dice_by_hand():
    # Thresholds from the top: 2/4 (TP 1, FN 2), 4/5 (TP 2, FN 1), 4/6, 6/7 (all but one below).
    masks = np.array([[[1, 1]], [[0, 1]], [[0, 0]]], np.uint8)
    maps = np.array([[[0.9, 0.8]], [[0.7, 0.6]], [[0.2, 0.1]]])
    found = estimate_pixels(METRICS, masks, maps, _own_groups(3), 50)
    assert found["best_dice"].value == pytest.approx(6 / 7)


def test_regions_have_equal_weight():
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, 0, 0] = masks[0, 1, 1] = 1  # touch at a corner: one region
    masks[0, 3, 0:3] = 1
    masks[1, 0, 0] = 1  # below the first one, in another image: its own region
    weights = region_weights(masks)
    assert weights[0, 0, 0] == weights[0, 1, 1] == 1 / 2
    np.testing.assert_allclose(weights[0, 3, :3], 1 / 3)
    assert weights[1, 0, 0] == 1.0
    assert weights.sum() == pytest.approx(3) and not weights[masks == 0].any()


def test_aupro_by_hand():
    """Two regions, of three pixels and of one, and ten normal pixels.

    From the highest score down: the small region (overlap 0, 1: mean 1/2), a normal pixel (rate
    .1), one pixel of the large region (mean 1/2 + 1/6 = 2/3), two normal pixels (rate .3), the
    rest. Under the mean overlap lie .1 x 1/2 + .2 x 2/3.
    """
    masks = np.zeros((1, 2, 7), np.uint8)
    masks[0, 0, 0] = masks[0, 0, 4] = masks[0, 0, 5] = masks[0, 0, 6] = 1
    maps = np.zeros((1, 2, 7))
    maps[0, 0, 0], maps[0, 0, 2], maps[0, 0, 4] = 9.0, 8.0, 7.0
    maps[0, 1, :2] = 6.0, 5.0
    found = estimate_pixels(METRICS, masks, maps, np.zeros(1, np.int64), RESAMPLES)["aupro"]
    assert found.value == pytest.approx((0.1 / 2 + 0.2 * 2 / 3) / 0.3)


def test_aupro_equals_scikit_learns_weighted_roc_up_to_its_limit(rng):
    masks = (rng.uniform(size=(6, 8, 8)) < 0.2).astype(np.uint8)
    maps = np.round(rng.normal(size=masks.shape) + masks, 1)  # ties, also across the limit
    found = estimate_pixels(METRICS, masks, maps, np.arange(6) // 2, RESAMPLES)["aupro"]
    weights = np.where(masks == 1, region_weights(masks), 1.0).ravel()
    rates, overlaps, _ = sklearn.metrics.roc_curve(
        masks.ravel(), maps.ravel(), sample_weight=weights, drop_intermediate=False
    )
    inside = rates < 0.3
    heights = np.append(overlaps[inside], np.interp(0.3, rates, overlaps))
    expected = np.trapezoid(heights, np.append(rates[inside], 0.3)) / 0.3
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


def test_pixel_intervals_resample_patients(rng):
    """Binned and exact scores give the same interval; copies of slices do not change it."""
    masks, maps = _maps(rng, count=40)
    found = estimate_pixels(METRICS, masks, maps, _own_groups(40), RESAMPLES)
    for name, metric in [("pixel_auroc", AUROC), ("pixel_average_precision", AVERAGE_PRECISION)]:
        exact = metrics.estimate(
            metric,
            masks.ravel().astype(np.int64),
            maps.ravel(),
            np.repeat(_own_groups(40), masks[0].size),
            RESAMPLES,
        )
        assert found[name].value == pytest.approx(exact.value, rel=1e-12)
        # 2,048 bins of 2,560 pixels: the ends move by far less than the width.
        assert found[name].low == pytest.approx(exact.low, abs=0.05 * _width(exact))
        assert found[name].high == pytest.approx(exact.high, abs=0.05 * _width(exact))
    copies = estimate_pixels(
        METRICS,
        np.repeat(masks, 3, axis=0),
        np.repeat(maps, 3, axis=0),
        np.repeat(_own_groups(40), 3),
        RESAMPLES,
    )
    for name, estimate in found.items():
        assert estimate.low < estimate.value < estimate.high
        assert _width(copies[name]) == pytest.approx(_width(estimate), rel=0.05)


@pytest.mark.parametrize("fill", [0, 1])
def test_pixel_metrics_of_one_class_are_undefined(rng, fill):
    masks = np.full((3, 4, 4), fill, np.uint8)
    found = estimate_pixels(METRICS, masks, rng.normal(size=(3, 4, 4)), _own_groups(3), 50)
    assert set(found) == {"pixel_auroc", "pixel_average_precision", "aupro", "best_dice"}
    for estimate in found.values():
        assert estimate.as_json() == {"value": None, "low": None, "high": None}


def test_intervals_contain_the_value_where_anomalous_pixels_are_rare(rng):
    """With one anomalous pixel in 2,000, quantiles of all pixels would be too coarse."""
    masks = np.zeros((20, 100, 100), np.uint8)
    masks[:, 50, 50:55] = 1
    maps = rng.normal(size=masks.shape)
    maps[masks == 1] += 4.0
    found = estimate_pixels(METRICS, masks, maps, np.arange(20), 200)
    for name, estimate in found.items():
        assert estimate.low <= estimate.value <= estimate.high, name
    maps[masks == 1] += 10.0  # now they are apart
    for name, estimate in estimate_pixels(METRICS, masks, maps, np.arange(20), 200).items():
        assert estimate.value == pytest.approx(1.0), name
        assert estimate.low == pytest.approx(1.0, abs=1e-3), name
