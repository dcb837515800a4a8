"""AUROC, average precision and best Dice under many weightings, against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from jaxad.evaluate import curves


def _dice_over_thresholds(labels, scores, weights):
    """Computes the largest 2 TP / (2 TP + FP + FN) over all thresholds by definition."""

    def dice(threshold):
        called = scores >= threshold
        true = weights[called & (labels == 1)].sum()
        false = weights[called & (labels == 0)].sum()
        missed = weights[~called & (labels == 1)].sum()
        total = 2 * true + false + missed
        return 2 * true / total if total else 0.0

    return max(dice(threshold) for threshold in np.unique(scores))


REFERENCES = {
    "auroc": lambda labels, scores, weights: sklearn.metrics.roc_auc_score(
        labels, scores, sample_weight=weights
    ),
    "average_precision": lambda labels, scores, weights: sklearn.metrics.average_precision_score(
        labels, scores, sample_weight=weights
    ),
    "best_dice": _dice_over_thresholds,
}
METRICS = {name: getattr(curves, name) for name in REFERENCES}


def _at_each_score(labels, scores, weightings):
    """Returns the weights of positives and negatives at each distinct score."""
    distinct, columns = np.unique(scores, return_inverse=True)
    tables = []
    for label in (1, 0):
        table = np.zeros((len(weightings), len(distinct)))
        for row, weights in enumerate(weightings):
            np.add.at(table[row], columns[labels == label], weights[labels == label])
        tables.append(table)
    return tables


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("decimals", [9, 1, 0], ids=["no-ties", "ties", "mostly-ties"])
@pytest.mark.parametrize("kind", ["equal", "counts", "fractions"])
def test_weighted_metric_equals_scikit_learns(rng, name, decimals, kind):
    labels = (rng.uniform(size=80) < 0.3).astype(int)
    scores = np.round(rng.normal(size=80) + labels, decimals)
    weightings = {
        "equal": np.ones((1, 80)),
        # As a bootstrap draws them, zeros among them.
        "counts": rng.multinomial(80, np.full(80, 1 / 80), size=5).astype(float),
        "fractions": rng.uniform(0.1, 2.0, size=(5, 80)),
    }[kind]
    actual = METRICS[name](*_at_each_score(labels, scores, weightings))
    expected = [REFERENCES[name](labels, scores, weights) for weights in weightings]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


# Columns are ascending thresholds. Each expected number is worked out beside it.
BY_HAND = {
    "perfect": ([0, 0, 1, 1], [1, 1, 0, 0], {"auroc": 1, "average_precision": 1, "best_dice": 1}),
    # No pair is right. Precision is 1/3 and 2/4 at recalls 1/2 and 1: AP = (1/3 + 1/2) / 2.
    # All four called: 2 * 2 / (2 * 2 + 2) = 2/3.
    "reversed": (
        [1, 1, 0, 0],
        [0, 0, 1, 1],
        {"auroc": 0, "average_precision": 5 / 12, "best_dice": 2 / 3},
    ),
    # One threshold: 2 positives, 6 negatives. Precision 1/4; Dice 4 / (4 + 6).
    "all-tied": ([2], [6], {"auroc": 1 / 2, "average_precision": 1 / 4, "best_dice": 2 / 5}),
    # Scores n p n p: pairs right are 1 of 2 for the lower positive, 2 of 2 for the upper: 3/4.
    # Precision 1 at recall 1/2, 2/3 at recall 1: AP 5/6. Dice: {2/3, 1/2, 4/5, 4/6}.
    "interleaved": (
        [0, 1, 0, 1],
        [1, 0, 1, 0],
        {"auroc": 3 / 4, "average_precision": 5 / 6, "best_dice": 4 / 5},
    ),
    # A negative of weight 3 below a positive, one of weight 1 tied with it: (3 + 1/2) / 4.
    # Called at the top: precision 1/2, Dice 2 / (2 + 1).
    "weighted-tie": (
        [0, 1],
        [3, 1],
        {"auroc": 7 / 8, "average_precision": 1 / 2, "best_dice": 2 / 3},
    ),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", BY_HAND)
def test_small_cases_by_hand(case, name):
    positive, negative, expected = BY_HAND[case]
    actual = METRICS[name](np.array([positive], float), np.array([negative], float))
    np.testing.assert_allclose(actual, [expected[name]], rtol=1e-14)


@pytest.mark.parametrize("name", METRICS)
def test_rows_are_independent_weightings(name):
    rows = [BY_HAND[case] for case in ("perfect", "reversed", "interleaved")]
    positive, negative = (np.array([row[part] for row in rows], float) for part in (0, 1))
    expected = [row[2][name] for row in rows]
    np.testing.assert_allclose(METRICS[name](positive, negative), expected, rtol=1e-14)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_do_not_depend_on_the_scale_of_the_weights(rng, name):
    positive, negative = rng.uniform(size=(2, 4, 10))
    np.testing.assert_allclose(
        METRICS[name](7 * positive, 7 * negative), METRICS[name](positive, negative), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "without_positives", "without_negatives"),
    # Without negatives every call is right; AUROC compares pairs and has none.
    [("auroc", np.nan, np.nan), ("average_precision", np.nan, 1.0), ("best_dice", np.nan, 1.0)],
)
def test_a_missing_class_gives_nan_in_its_row_only(name, without_positives, without_negatives):
    some, none = [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]
    positive, negative = (
        np.array([none, some, none, [0.0, 1.0, 1.0]]),
        np.array([some, none, none, [1.0, 0.0, 0.0]]),
    )
    actual = METRICS[name](positive, negative)
    # The last row has both classes, perfectly apart.
    np.testing.assert_array_equal(actual, [without_positives, without_negatives, np.nan, 1.0])
