"""Studies: plans, finished and failed runs, and the contents of the tables."""

import csv
import dataclasses
import json
import math
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from small_study import make_config, read_table

from jaxad import config as config_lib
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.evaluate import evaluation
from jaxad.evaluate.positions import CORRECTED_SCORE
from jaxad.evaluate.references import (
    LINEAR_BASELINE,
    TITLES,
    ReferenceScores,
)
from jaxad.storage.workdir import Workdir
from jaxad.study import results, runner
from jaxad.study.plan import plan
from jaxad.study.results import make_table, read_scores
from jaxad.study.runner import run_study

# --- Planning.


def test_every_experiment_runs_with_every_seed_on_the_same_data(npz_root, tmp_path):
    config = make_config(npz_root, seeds=(3, 1))
    config.data.seed = 7  # one field for all
    config.num_epochs = 5.0
    config.lengths.large = 3.0
    planned = plan(config, Workdir(tmp_path))
    assert set(planned) == {"small", "large"}
    for name, runs in planned.items():
        assert [run.seed for run in runs] == [3, 1]
        for run in runs:
            assert run.config.seed == run.seed
            assert run.config.data.seed == 7
            assert run.config.train.num_epochs == (15.0 if name == "large" else 5.0)
            assert run.workdir.path == tmp_path / "runs" / name / f"seed_{run.seed}"
    assert planned["large"][0].config.model.latent_channels == (4,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": ()}, "config.seeds"),
        ({"seeds": (1, 1)}, "list each seed once"),
        ({"seeds": (0, -1)}, "each in .0, 4294967295."),
        ({"reference": "big"}, "unknown experiment 'big'; choose from large, small, mean"),
        ({"seeds_per_program": 0}, "0 is not in .1, inf."),
        (
            {"experiments": {"small": {"evaluate": {"false_positive_rate": 0.2}}}},
            "evaluate.false_positive_rate differs",
        ),
    ],
)
def test_studies_that_cannot_be_are_refused(npz_root, tmp_path, change, words):
    config = make_config(npz_root)
    config.update(change)
    with pytest.raises(UserError, match=words):
        plan(config, Workdir(tmp_path))


def test_seeds_of_one_program_that_would_stop_early_are_refused(npz_root, tmp_path):
    config = make_config(npz_root)
    config.seeds_per_program = 2
    config.experiments.large.train.early_stopping = 1  # the second one: before the first trains
    with pytest.raises(UserError, match=r"early_stopping: seeds .*seeds_per_program=1"):
        run_study(config, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_plain_config_is_no_study(tmp_path):
    with pytest.raises(UserError, match="describes a single run"):
        run_study(config_lib.get_config("pchvae:smoke"), tmp_path)


# --- Running.


def test_a_study_writes_runs_tables_and_a_contact_sheet(finished):
    for name in ("small", "large"):
        for seed in (0, 1):
            folder = finished / "runs" / name / f"seed_{seed}"
            assert json.loads((folder / "config.json").read_text())["seed"] == seed
            assert (folder / "report.html").exists()
    text = (finished / "table.md").read_text()
    assert "## test_squares" in text and "figures/test_squares.png" in text
    assert TITLES[LINEAR_BASELINE] in text
    for name in ("test_squares", "maps_test_squares", "heat_map_test_squares"):
        assert (finished / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    heading, *rows = (finished / "heat_map_test_squares.csv").read_text().splitlines()
    assert heading == "alpha \\ beta,0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    assert [row.split(",")[0] for row in rows] == ["0", "1"]


def test_the_table_is_made_of_the_runs_own_files(finished):
    table = read_table(finished)
    for name in ("small", "large"):
        values = [
            json.loads(
                (finished / f"runs/{name}/seed_{seed}/eval/test_squares/metrics.json").read_text()
            )
            for seed in (0, 1)
        ]
        for metric in (
            "mse", "psnr", "ssim", "auroc", "auroc_position_corrected", "average_precision",
            "pixel_auroc", "aupro", "best_dice",
        ):  # fmt: skip
            row = table[name, metric]
            ours = [value[metric]["value"] for value in values]
            assert float(row["mean"]) == pytest.approx(np.mean(ours), rel=1e-5)
            assert float(row["standard_deviation"]) == pytest.approx(
                np.std(ours, ddof=1), rel=1e-3, abs=1e-7
            )
            assert int(row["runs"]) == 2
            assert int(row["parameters"]) == values[0]["num_parameters"]
    # The better experiment is the reference of the other.
    compared = [table[name, "mse"]["reference"] for name in ("small", "large")]
    best = min(("small", "large"), key=lambda name: float(table[name, "mse"]["mean"]))
    assert sorted(compared) == ["", best]
    other = "small" if best == "large" else "large"
    assert float(table[other, "mse"]["difference"]) == pytest.approx(
        float(table[other, "mse"]["mean"]) - float(table[best, "mse"]["mean"])
    )


def test_metrics_of_one_name_are_refused_before_anything_is_trained(
    npz_root, tmp_path, monkeypatch
):
    config = make_config(npz_root)
    for name, function in (("small", lambda labels, scores: 0.0), ("large", lambda *_: 1.0)):
        function.__name__ = "mine"
        monkeypatch.setitem(sys.modules, f"metrics_{name}", SimpleNamespace(mine=function))
        config.experiments[name].evaluate.metrics = (f"metrics_{name}:mine",)
    with pytest.raises(UserError, match="two metrics are named 'mine'; rename yours"):
        run_study(config, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_seconds_are_of_the_median_rate(finished, npz_root):
    """The median of 100, 10 and 50 images/s is 50; the last step is 9: 9 x 8 images / 50."""
    run = plan(make_config(npz_root), Workdir(finished))["small"][0]
    kept = run.workdir.metrics.read_text()
    try:
        run.workdir.metrics.write_text(
            "".join(
                json.dumps({"step": step, "train/images_per_second": rate}) + "\n"
                for step, rate in ((3, 100.0), (6, 10.0), (9, 50.0))
            )
        )
        assert results.training_seconds(run) == pytest.approx(9 * 8 / 50)
        run.workdir.metrics.write_text('{"step": 1, "fit/images": 24, "fit/seconds": 2.5}\n')
        assert results.training_seconds(run) == 2.5  # a system that is fitted in one pass
    finally:
        run.workdir.metrics.write_text(kept)


def test_the_baseline_stands_in_the_table_as_in_a_run_s_report(finished):
    table = read_table(finished)
    path = finished / "runs/small/seed_0/eval/test_squares/metrics.json"
    baseline = json.loads(path.read_text())["trivial"][LINEAR_BASELINE]
    for metric, estimate in baseline.items():
        assert float(table[LINEAR_BASELINE, metric]["mean"]) == pytest.approx(estimate["value"])


def test_corrected_scores_are_a_column_and_their_auroc_is_the_corrected_one(finished):
    from sklearn.metrics import roc_auc_score

    folder = finished / "runs/small/seed_0/eval/test_squares"
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-1] == CORRECTED_SCORE
    auroc = roc_auc_score(
        [int(row["label"]) for row in rows], [float(row[CORRECTED_SCORE]) for row in rows]
    )
    found = json.loads((folder / "metrics.json").read_text())["auroc_position_corrected"]["value"]
    assert auroc == pytest.approx(found)


@pytest.mark.long
def test_finished_runs_are_skipped_and_new_seeds_added(finished, npz_root, monkeypatch):
    trained = []
    original = runner.train_seeds

    def train_seeds(configs, workdirs, data_set):
        trained.append([str(workdir.path.relative_to(finished)) for workdir in workdirs])
        return original(configs, workdirs, data_set)

    monkeypatch.setattr(runner, "train_seeds", train_seeds)
    assert run_study(make_config(npz_root), finished)
    assert trained == []
    (finished / "runs/large/seed_1/report.html").unlink()  # killed before its report
    assert run_study(make_config(npz_root), finished)
    assert trained == [["runs/large/seed_1"]]
    # One of the two runs is trained already, so they cannot train as one program.
    shutil.rmtree(finished / "runs/large/seed_0")
    (finished / "runs/large/seed_1/eval/test_squares/metrics.json").write_text("{")
    config = make_config(npz_root)
    config.seeds_per_program = 2
    assert run_study(config, finished)
    assert trained[1:] == [["runs/large/seed_0"], ["runs/large/seed_1"]]


@pytest.mark.long
def test_one_seed_s_failure_is_not_its_group_s(npz_root, tmp_path, monkeypatch):
    original = runner.train_seeds

    def train_seeds(configs, workdirs, data_set):
        if any(config.seed == 1 for config in configs):
            raise RunError("step 3: loss is nan")
        return original(configs, workdirs, data_set)

    monkeypatch.setattr(runner, "train_seeds", train_seeds)
    config = make_config(npz_root)
    del config.experiments["large"]
    config.seeds_per_program = 2
    with pytest.raises(RunError, match="1 runs failed: small, seed 1: step 3: loss is nan"):
        run_study(config, tmp_path)
    assert int(read_table(tmp_path)["small", "auroc"]["runs"]) == 1


def test_scores_of_other_images_are_not_compared(finished, npz_root, monkeypatch):
    config = make_config(npz_root)
    planned, data_set = plan(config, Workdir(finished)), DataSet(config.data)
    split = data_set.split("test_squares")
    ids = (*split.ids[:-1], "another")
    renamed = dataclasses.replace(split, ids=ids)
    monkeypatch.setattr(data_set, "split", lambda name: renamed)
    with pytest.raises(
        UserError, match="was made from other images than those of 'test_squares' now; to evaluate"
    ):
        read_scores(planned, data_set, ReferenceScores(data_set), "test_squares")


def test_normal_images_without_a_score_are_one_run_s_failure(npz_root, tmp_path, monkeypatch):
    original = evaluation.score_split

    def score(detector, split, description, reduce, **options):
        columns, reduced = original(detector, split, description, reduce, **options)
        if description == "score val" and detector.config.model.latent_channels == (4,):
            columns["score"] = np.full_like(columns["score"], np.nan)
        return columns, reduced

    monkeypatch.setattr(evaluation, "score_split", score)
    config = make_config(npz_root, seeds=(0,))
    del config.experiments["small"]  # of others that go on, see the next test
    with pytest.raises(RunError, match="1 runs failed: large, seed 0: val: the score of image"):
        run_study(config, tmp_path)
    assert not (tmp_path / "runs/large/seed_0/calibration.json").exists()


def test_a_failed_run_is_named_and_the_others_go_on(npz_root, tmp_path):
    config = make_config(npz_root, seeds=(0,))
    broken = config.experiments.large.optim
    broken.name, broken.learning_rate, broken.clip_norm = "sgd", 1e20, 0.0
    broken.warmup_steps, broken.schedule = 0, "constant"
    config.reference = "large"  # of which nothing comes: the best is the reference
    message = r"1 runs failed: large, seed 0: step \d+: term/\w+ is"
    with pytest.raises(RunError, match=message):
        run_study(config, tmp_path)
    table = read_table(tmp_path)
    assert ("small", "auroc") in table and ("large", "auroc") not in table


def test_a_folder_with_a_run_of_another_config_is_refused_before_anything_runs(finished, npz_root):
    config = make_config(npz_root)
    config.num_epochs = 4.0
    with pytest.raises(
        UserError, match="holds this study with another config.*num_epochs.*in 'large'"
    ):
        run_study(config, finished)


def test_sigterm_ends_a_study_and_the_rest_waits(npz_root, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "train_seeds", lambda *arguments: False)
    assert not run_study(make_config(npz_root), tmp_path)
    assert not (tmp_path / "table.md").exists()


def test_one_run_has_no_deviation(finished, npz_root):
    config = make_config(npz_root, seeds=(0,))
    planned = plan(config, Workdir(finished))
    data_set = DataSet(config.data)
    config.reference = LINEAR_BASELINE
    scored = read_scores(planned, data_set, ReferenceScores(data_set), "test_squares")
    table = make_table(config, planned, scored, "test_squares")
    assert all(math.isnan(row.metrics["auroc"].deviation) for row in table.rows)
    # All others are compared with the linear baseline, which is also the reference score of the
    # highest AUROC or not.
    differs = {row.experiment: bool(row.differences) for row in table.rows}
    assert [name for name in differs if not differs[name]] == [LINEAR_BASELINE]
    (best,) = [row.experiment for row in table.rows if row.from_best is None]
    assert best == table.best_reference
