"""Checks and messages of an evaluation."""

import numpy as np
import pytest

from jaxad.errors import RunError
from jaxad.evaluate.metrics import METRICS, Metric
from jaxad.evaluate.split_evaluation import _print_summary, _report_constants, check_finite
from jaxad.types import Split

SPLIT = Split(
    images=np.zeros((3, 4, 4, 1), np.uint8),
    labels=np.zeros(3, np.int32),
    ids=("a", "b", "c"),
    groups=("a", "b", "c"),
)


def test_the_first_score_that_is_not_finite_is_reported():
    check_finite("test", "score", SPLIT, np.array([1.0, 2.0, 3.0]))
    words = "test: the anomaly map of image 'b' is not finite .2 such images"
    with pytest.raises(RunError, match=words):
        check_finite("test", "anomaly map", SPLIT, np.array([1.0, np.nan, -np.inf]))


def test_constant_columns_are_reported(capsys):
    columns = {"flow": np.array([-0.0, -0.0]), "ssim": np.array([0.1, 0.2])}
    _report_constants("test", columns, at_means=False)
    line = "test: 'flow' is 0 for every image and carries no information."
    assert capsys.readouterr().out == f"{line}\n"
    _report_constants("test", columns, at_means=True)
    assert capsys.readouterr().out == (
        f"{line} Scores take the latents at their means; the terms in the log of training are of "
        "drawn latents, and differ.\n"
    )


def test_the_summary_shows_external_metrics_and_warns_of_missing_columns(capsys):
    metrics = (*METRICS, Metric("own", max, decimals=1), Metric("other", max, column="flow"))
    interval = {"value": 0.75, "low": 0.5, "high": None}
    undefined = dict.fromkeys(("value", "low", "high"))
    results = {"auroc": undefined, "mse": interval, "own": interval | {"high": 1.0}}
    results |= {"num_images": 3, "num_anomalous": 0}
    _print_summary("test", metrics, results)
    printed = capsys.readouterr()
    assert printed.out == "test: auroc undefined (one class only), own 0.8 [0.5, 1.0]\n"
    assert printed.err == "test: has no 'flow', so metric 'other' is left out.\n"


def test_the_summary_says_how_the_system_compares_with_the_best_reference(capsys):
    difference = {"value": -0.0864, "low": -0.101, "high": -0.0712, "p_value": 0.001}
    results = {
        "num_images": 3,
        "num_anomalous": 1,
        "auroc": {"value": 0.835, "low": None, "high": None},
        "best_reference": {"name": "feature_gaussian", "difference": difference},
        "trivial": {"feature_gaussian": {"auroc": {"value": 0.9214}}},
    }
    _print_summary("test", METRICS, results)
    assert capsys.readouterr().out == (
        "test: auroc 0.835\n"
        "test: best reference: Gaussian at each place of the features, auroc 0.921; the system "
        "minus it: -0.086 [-0.101, -0.071]\n"
    )
