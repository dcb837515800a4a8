"""The audit: the figures of each run's own evaluation, and thresholds at equal rates."""

import csv
import json

import numpy as np
import pytest
from small_study import make_config

from jaxad.calibration.conformal import calibrate
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.evaluate.paired import ScoredSplit
from jaxad.evaluate.references import PIXEL_STATISTICS, TITLES, ReferenceScores
from jaxad.storage.workdir import Workdir
from jaxad.study.audit import BEST, SAME_RATE, _figures, make_audit
from jaxad.study.plan import plan
from jaxad.study.results import read_scores


def test_the_audit_says_what_each_run_s_own_evaluation_says(finished):
    with (finished / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = {(row["system"], row["threshold"], row["figure"]): float(row["mean"]) for row in rows}
    over_folds = {
        (row["system"], row["figure"]): float(row["deviation_over_folds"])
        for row in rows
        if row["threshold"] == "five_fold"
    }
    for name in ("small", "large"):
        found = [
            json.loads(
                (finished / f"runs/{name}/seed_{seed}/eval/test_squares/metrics.json").read_text()
            )["decisions"]
            for seed in (0, 1)
        ]
        for figure in ("f1", "accuracy", "sensitivity", "specificity"):
            best = [one["best_on_test"][figure]["value"] for one in found]
            own = [one["normal_images_only"]["image"][figure]["value"] for one in found]
            folds = [one["five_fold"]["mean"][figure] for one in found]
            for threshold, values in (
                ("best_on_test", best), ("normal_images_only", own), ("five_fold", folds),
            ):  # fmt: skip
                assert table[name, threshold, figure] == pytest.approx(np.mean(values))
            deviations = [one["five_fold"]["deviation"][figure] for one in found]
            assert over_folds[name, figure] == pytest.approx(np.mean(deviations))
    # Half of the slices are anomalous: 2 x 12 / (12 + 24).
    assert table["", "all_positive", "f1"] == pytest.approx(2 / 3)
    path = finished / "runs/small/seed_0/eval/test_squares/metrics.json"
    metrics = json.loads(path.read_text())
    f1 = metrics["decisions"]["pixel_statistics"]["f1"]["value"]
    assert table[PIXEL_STATISTICS, "best_on_test", "f1"] == pytest.approx(f1)
    auroc = metrics["trivial"][PIXEL_STATISTICS]["auroc"]["value"]
    assert table[PIXEL_STATISTICS, "", "auroc"] == pytest.approx(auroc)
    text = (finished / "table.md").read_text()
    assert "**Audit.**" in text and f"| {TITLES[PIXEL_STATISTICS]} |" in text
    # The smallest rate that 6 patients support is 1 / 7.
    assert "at most 14.3 % false positives by image, from 6 normal patients" in text
    assert "ensemble of all runs, by mean rank" in text


def test_the_audit_of_another_checkpoint_s_calibration_is_refused(finished, npz_root):
    config = make_config(npz_root)
    planned, data_set = plan(config, Workdir(finished)), DataSet(config.data)
    references = ReferenceScores(data_set)
    scored = read_scores(planned, data_set, references, "test_squares")
    path = finished / "runs/small/seed_0/calibration.json"
    kept = path.read_text()
    try:
        for change, words in (
            ({"checkpoint_step": 1}, "its calibration was made with checkpoint 1, not"),
            ({"source": "site.npz", "is_own": False}, "calibrated on 'site.npz', but an audit"),
        ):
            path.write_text(json.dumps(json.loads(kept) | change))
            with pytest.raises(UserError, match=words):
                make_audit(planned, scored, data_set, references, "test_squares")
    finally:
        path.write_text(kept)


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
