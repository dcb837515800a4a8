"""Metrics of other packages, named in `config.evaluate.metrics`."""

import re

import numpy as np
import pytest

from jaxad.config import base
from jaxad.errors import RunError, UserError
from jaxad.evaluate import paired, split_evaluation
from jaxad.evaluate.metrics import AUROC, METRICS, estimate, load_metrics
from jaxad.evaluate.paired import ScoredSplit
from jaxad.evaluate.pixel_metrics import estimate_pixels

MODULE = """
from jaxad.evaluate import curves
from jaxad.evaluate.metrics import PIXELS, Metric
import sklearn.metrics

def mean_gap(labels, scores):
    return scores[labels == 1].mean() - scores[labels == 0].mean()

def num_hits(labels, scores):
    return 0.0

def external(labels, scores):
    return 0.0

def auroc(labels, scores):
    return sklearn.metrics.roc_auc_score(labels, scores)

def fails(labels, scores):
    raise ValueError("no such thing\\nat all")

def few(labels, scores):
    return scores[:20][len(scores) - 1]  # fails with more than 20 images

def text(labels, scores):
    return "high"

plain_auroc = Metric("plain_auroc", auroc, title="AUROC, by rows")
largest = Metric("largest", lambda labels, scores: scores.max(), normal_only=True,
                 higher_is_better=False)
pixel_half = Metric("pixel_half", curve=lambda p, n: curves.auroc(p, n) / 2, column=PIXELS)
no_curve = Metric("no_curve", auroc, column=PIXELS)
flat_curve = Metric("flat_curve", auroc, curve=lambda p, n: 0.5)

def bad(positive, negative):
    if positive.shape != (2, 20):  # the trial's
        raise ValueError("too many thresholds")
    return positive.sum(axis=1)

def never(labels, scores):
    return float("nan")

bad_curve = Metric("bad_curve", curve=bad, column=PIXELS)
number = 3
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    (tmp_path / "my_own_metrics.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def load(*names):
        config = base()
        config.evaluate.metrics = tuple(f"my_own_metrics:{name}" for name in names)
        return load_metrics(config)

    return load


def scored(rng, count=120):
    labels = (rng.uniform(size=count) < 0.4).astype(np.int64)
    return labels, rng.normal(size=count) + labels, np.arange(count) // 3


def test_functions_and_records_follow_the_metrics_of_jaxad(load):
    assert load() == METRICS
    names = [metric.name for metric in load("mean_gap", "largest", "mean_gap")]
    assert names == [*(metric.name for metric in METRICS), "mean_gap", "largest"]
    assert load("mean_gap")[-1].title == load("mean_gap")[-1].heading == "Mean gap"


def test_resampled_rows_give_the_interval_of_the_curve(load, rng):
    """AUROC as a plain function: the value and the interval of the built-in record."""
    labels, scores, groups = scored(rng)
    plain = estimate(load("plain_auroc")[-1], labels, scores, groups, 100)
    fast = estimate(AUROC, labels, scores, groups, 100)
    assert plain.value == fast.value
    assert (plain.low, plain.high) == pytest.approx((fast.low, fast.high), rel=1e-12)


def test_a_metric_of_normal_images_ignores_the_others(load, rng):
    labels, scores, groups = scored(rng)
    metric = load("largest")[-1]
    scores[labels == 1] += 100
    found = estimate(metric, labels, scores, groups, 50)
    assert found.value == found.high == scores[labels == 0].max()
    assert np.isnan(estimate(metric, np.ones(9, int), scores[:9], groups[:9], 50).value)


def test_a_metric_of_pixels_is_estimated_from_its_curve(load, rng):
    masks = (rng.uniform(size=(6, 8, 8)) < 0.2).astype(np.uint8)
    found = estimate_pixels(
        load("pixel_half"), masks, rng.normal(size=masks.shape), np.arange(6), 9
    )
    assert found["pixel_half"].value == found["pixel_auroc"].value / 2
    assert found["pixel_half"].high == found["pixel_auroc"].high / 2


def test_runs_are_compared_by_external_metrics(load, rng):
    labels, scores, groups = scored(rng)
    metrics = load("mean_gap", "largest")
    ours, theirs = (ScoredSplit(labels, groups, {"score": factor * scores}) for factor in (2, 1))
    shared = paired.comparable(metrics, [ours, theirs])
    assert [metric.name for metric in shared] == [
        "largest", "auroc", "average_precision", "mean_gap",  # less is better: first
    ]  # fmt: skip
    found = paired.difference(shared[-1], [ours], [theirs], 50)
    gap = scores[labels == 1].mean() - scores[labels == 0].mean()
    assert found.value == pytest.approx(2 * gap - gap)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auroc", "two metrics are named 'auroc'; rename yours"),
        ("num_hits", "is named 'num_hits', which cannot be a metric's key"),
        ("external", "is named 'external', which cannot be a metric's key"),
        ("number", "is int; name a function"),
        ("missing", "has no 'missing'"),
        ("fails", r"fails on labels and scores of 20 images \(ValueError: no such thing\)"),
        ("text", r"fails on labels .*could not convert string to float"),
        ("no_curve", "has no curve; a metric of pixels needs one"),
        ("flat_curve", "does not return one value per resample"),
    ],
)
def test_objects_that_are_not_metrics_are_reported_in_one_line(load, name, words):
    with pytest.raises(UserError, match=f"config.evaluate.metrics: .*{words}") as raised:
        load(name)
    assert "\n" not in str(raised.value)


def test_a_metric_that_fails_on_the_data_is_reported(load, rng):
    labels, scores, groups = scored(rng)
    with pytest.raises(RunError, match=r"metric 'few': its function failed \(IndexError: "):
        estimate(load("few")[-1], labels, scores, groups, 50)
    masks = (rng.uniform(size=(6, 8, 8)) < 0.2).astype(np.uint8)
    with pytest.raises(RunError, match=r"metric 'bad_curve': its curve failed \(ValueError: "):
        estimate_pixels(load("bad_curve"), masks, rng.normal(size=masks.shape), np.arange(6), 9)


@pytest.mark.parametrize(
    ("num_anomalous", "text"), [(5, "not finite"), (0, r"undefined \(one class only\)")]
)
def test_a_metric_that_is_not_finite_is_a_warning(load, capsys, num_anomalous, text):
    metric, empty = load("never")[-1], {"value": None, "low": None, "high": None}
    sizes = {"num_images": 9, "num_anomalous": num_anomalous}
    split_evaluation._print_summary("test_a", [metric], {"never": empty, **sizes})
    printed = capsys.readouterr()
    assert re.search(f"never {text}", printed.out)
    warning = "test_a: metric 'never' is not finite and is left empty; correct it, then"
    assert printed.err.startswith(warning) == bool(num_anomalous)
