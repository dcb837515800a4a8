"""The whole way: a fit through launch.py, its files, its detector, and that it repeats itself."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxad
from jaxad import cli
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.models import title

ROOT = Path(__file__).parent.parent

SPLITS = ("test_lesions", "test_objects")
COMPONENTS = {  # JAX sorts names
    "pchvae": ["kl_high", "kl_low", "mse", "nll", "nll_high", "nll_zero"],
    "chvae": ["kl_high", "kl_low", "mse", "nll"],
    "highvae": ["kl_high", "mse", "nll"],
    "lowvae": ["kl_low", "mse", "nll"],
    "vqvae2": ["commitment_bottom", "commitment_top", "mse"],
}
AEFLOW_COMPONENTS = [
    "feature_nll", "flow_score", "latent_nll", "log_det", "mse", "reconstruction_score", "ssim",
    "top_tenth",
]  # fmt: skip


def rows(workdir, split):
    with (workdir / "eval" / split / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def check_contract(workdir, system):
    """Every file that a fit leaves behind, and what is in it."""
    for name in (
        "config.json", "metrics.jsonl", "report.html", "checkpoints", "tensorboard",
        "calibration.json",
    ):  # fmt: skip
        assert (workdir / name).exists(), name
    assert json.loads((workdir / "config.json").read_text())["model"]["name"] == system
    for split in SPLITS:
        components = AEFLOW_COMPONENTS if system == "aeflow" else COMPONENTS[system]
        quality = ["reconstruction_psnr", "reconstruction_ssim"]
        header = ["id", "group", "position", "label", "score", *components, *quality]
        assert list(rows(workdir, split)[0]) == [*header, "score_position_corrected"]
        metrics = json.loads((workdir / "eval" / split / "metrics.json").read_text())
        assert list(metrics)[-1] == "trivial"
        for name in (
            "auroc",
            "auroc_position_corrected",
            "average_precision",
            "mse",
            "psnr",
            "ssim",
            "pixel_auroc",
            "pixel_average_precision",
            "aupro",
            "best_dice",
        ):
            assert set(metrics[name]) == {"value", "low", "high"}
            assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
        assert "pca_64" in metrics["trivial"]
        for trivial in metrics["trivial"].values():
            assert set(trivial) == {"auroc", "auroc_position_corrected"}
    report = (workdir / "report.html").read_text()
    assert "semi-synthetic" in report
    assert title(system) in report


def check_run(workdir, system):
    """The contract, and that the detector scores as the evaluation did."""
    check_contract(workdir, system)
    detector = jaxad.load(workdir)
    split = DataSet(detector.config.data).split("test_objects")
    scores = detector.score(split.images[:3])
    written = [float(row["score"]) for row in rows(workdir, "test_objects")[:3]]
    np.testing.assert_allclose(scores.image, written, rtol=1e-4)
    assert scores.reconstructions["reconstruction"].shape == (3, 64, 64, 1)


def test_a_fit_keeps_the_contract_and_loads_as_a_detector(smoke_run):
    check_run(smoke_run, "pchvae")


@pytest.mark.long
def test_a_fit_of_codes_keeps_the_contract_and_loads_as_a_detector(launch, data_root, tmp_path):
    result = launch(
        "--config=vqvae2:smoke", f"--workdir={tmp_path}", f"--config.data.root={data_root}"
    )
    assert result.returncode == 0, result.stderr
    check_run(tmp_path, "vqvae2")


@pytest.mark.long
@pytest.mark.parametrize("system", COMPONENTS)
def test_every_system_keeps_the_contract_and_loads_as_a_detector(smoke_study, system):
    check_run(smoke_study / "runs" / system / "seed_0", system)


def test_ae_flow_keeps_the_contract_and_loads_without_its_weights_file(aeflow_run):
    check_contract(aeflow_run, "aeflow")
    table = rows(aeflow_run, "test_objects")
    score, flow, reconstruction = (
        np.array([float(row[name]) for row in table])
        for name in ("score", "flow_score", "reconstruction_score")
    )
    np.testing.assert_allclose(score, 0.9 * flow + 0.1 * reconstruction, rtol=1e-5)
    # The checkpoint holds the encoder: the file is needed no more.
    config = json.loads((aeflow_run / "config.json").read_text())
    config["model"]["weights"] = "gone.pth"
    (aeflow_run / "config.json").write_text(json.dumps(config))
    detector = jaxad.load(aeflow_run)
    split = DataSet(detector.config.data).split("test_objects")
    scores = detector.score(split.images[:3])
    np.testing.assert_allclose(scores.image, score[:3], rtol=1e-4)
    assert set(scores.maps) == {"residual", "ssim", "flow"}
    with np.load(aeflow_run / "eval/test_objects/examples.npz") as examples:
        assert {"map_residual", "map_ssim", "map_flow"} <= set(examples.files)
    report = (aeflow_run / "report.html").read_text()
    assert "SSIM" in report
    config["model"]["weights"] = ""
    (aeflow_run / "config.json").write_text(json.dumps(config))


@pytest.mark.long
def test_training_with_and_without_the_feature_cache_agree(aeflow_run, launch, data_root, tmp_path):
    arguments = ["--config=aeflow:smoke", "--mode=train", f"--config.data.root={data_root}"]
    off = launch(*arguments, f"--workdir={tmp_path}", "--config.train.feature_cache=off")
    assert off.returncode == 0, off.stderr
    assert "feature cache" not in off.stdout
    detector = jaxad.load(tmp_path)
    images = DataSet(detector.config.data).split("test_objects").images[:16]
    written = [float(row["score"]) for row in rows(aeflow_run, "test_objects")[:16]]
    # The cache has 11 bits of mantissa; ten updates follow it. Measured: 2e-5; features of the
    # image beside it: 8e-4.
    np.testing.assert_allclose(detector.score(images).image, written, rtol=2e-4)
    # Where the features lie is not what the run is: the same folder is not refused.
    again = launch(*arguments, f"--workdir={tmp_path}")
    assert again.returncode == 0, again.stderr
    assert "is trained already" in again.stdout


@pytest.mark.long
def test_a_study_launched_again_finds_everything_done(smoke_study, launch, data_root):
    before = (smoke_study / "table.md").read_text()
    for system in COMPONENTS:
        assert f"| {title(system)} |" in before
    result = launch(
        "--mode=study",
        "--config=studies/pchvae_table1:smoke",
        f"--workdir={smoke_study}",
        f"--config.data.root={data_root}",
        "--config.seeds=(0,)",
    )
    assert result.returncode == 0, result.stderr
    assert "train" not in result.stderr  # no progress bar of a training
    assert (smoke_study / "table.md").read_text() == before


def test_scores_add_up_and_metrics_follow_from_them(smoke_run):
    from sklearn.metrics import roc_auc_score

    table = rows(smoke_run, "test_objects")
    score = np.array([float(row["score"]) for row in table])
    parts = sum(
        np.array([float(row[name]) for row in table]) for name in ("nll", "kl_high", "kl_low")
    )
    np.testing.assert_allclose(score, parts, rtol=1e-5)
    metrics = json.loads((smoke_run / "eval/test_objects/metrics.json").read_text())
    labels = [int(row["label"]) for row in table]
    assert metrics["auroc"]["value"] == pytest.approx(roc_auc_score(labels, score))


@pytest.mark.long
def test_two_runs_of_one_config_give_identical_scores(smoke_run, launch, data_root, tmp_path):
    result = launch(
        "--config=configs/pchvae.py:smoke",
        f"--workdir={tmp_path / 'again'}",
        f"--config.data.root={data_root}",
    )
    assert result.returncode == 0, result.stderr
    for split in SPLITS:
        ours, theirs = (
            (folder / "eval" / split / "scores.csv").read_bytes()
            for folder in (tmp_path / "again", smoke_run)
        )
        assert ours == theirs


def test_the_loaded_detector_scores_as_the_evaluation_did_alone_or_in_a_batch(smoke_run):
    detector = jaxad.load(smoke_run)
    assert detector.image_shape == (64, 64, 1)
    split = DataSet(detector.config.data).split("test_objects")
    images = detector.preprocess(split.images[:5])
    scores = detector.score(images)
    written = [float(row["score"]) for row in rows(smoke_run, "test_objects")[:5]]
    # Eight devices here, one in the launched process.
    np.testing.assert_allclose(scores.image, written, rtol=1e-5)
    alone = [detector.score(images[row : row + 1]).image[0] for row in range(5)]
    np.testing.assert_allclose(alone, scores.image, rtol=1e-6)
    assert scores.pixel.shape == (5, 64, 64)
    assert set(scores.reconstructions) == {"high", "low", "zero", "reconstruction"}


def test_what_scores_mean_is_the_same_in_python_and_in_the_tables_of_scored_files(
    smoke_run, tmp_path
):
    detector = jaxad.load(smoke_run)
    split = jaxad.load_data(detector.config).split("test_objects")
    path = tmp_path / "images.npz"
    np.savez(path, image=split.images[:8], id=split.ids[:8], group=split.groups[:8])
    assert jaxad.score_files(smoke_run, path, tmp_path / "out", rate=0.4, maps="none")
    assert not (tmp_path / "out/maps").exists()
    with (tmp_path / "out/scores.csv").open() as file:
        table = list(csv.DictReader(file))
    told = jaxad.explain(smoke_run, detector.score(split.images[:8]), rate=0.4)
    assert list(told) == list(table[0])[3:]  # after id, group and position
    for name, values in told.items():
        written = [row[name] for row in table]
        if name == "driver":
            assert values.tolist() == written
        else:
            np.testing.assert_allclose(np.array(written, np.float64), values, rtol=1e-4)
    assert told["anomalous"].tolist() == (told["p_value"] <= 0.4).astype(int).tolist()
    parts = sum(told[f"from_{name}"] for name in detector.score_weights)
    # The score minus the normal patients' mean: the same difference for every image.
    np.testing.assert_allclose(np.ptp(told["score"] - parts), 0, atol=1e-2 * told["score"].mean())


def test_another_checkpoint_s_scores_are_not_judged_by_the_last_one(smoke_run, capsys):
    steps = [
        int(path.name) for path in (smoke_run / "checkpoints").iterdir() if path.name.isdigit()
    ]
    earlier = min(steps)
    assert earlier < max(steps)
    detector = jaxad.load(smoke_run, earlier)
    scores = detector.score(np.zeros((2, *detector.image_shape), np.float32))
    told = jaxad.explain(smoke_run, scores, rate=0.4, checkpoint=earlier)
    assert f"was made with checkpoint {max(steps)}, not {earlier}" in capsys.readouterr().err
    assert "score" in told and not {"p_value", "anomalous"} & set(told)


def test_images_that_cannot_be_scored_are_named(smoke_run):
    detector = jaxad.load(smoke_run)
    images = np.zeros((3, 64, 64, 1), np.float32)
    images[2, 5, 5] = np.nan
    for bad, words in {
        "image '2' has NaN": images,
        r"rank 3": images[0],
        r"\(32, 64, 1\)": images[:, :32],
        "there are none": images[:0],
    }.items():
        with pytest.raises(UserError, match=bad):
            detector.score(words)


def test_a_run_is_exported_with_its_card(smoke_run, capsys):
    assert cli.main(["--mode=export", f"--workdir={smoke_run}"]) == 0
    path = smoke_run / "detector.jaxad"
    assert capsys.readouterr().out.startswith(f"exported: {path} (")
    loaded, run = jaxad.load(path), jaxad.load(smoke_run)
    card = loaded.card
    assert card["system"] == "pchvae" and "not a medical device" in card["purpose"]
    metrics = json.loads((smoke_run / "eval/test_objects/metrics.json").read_text())
    assert card["evaluated_on"]["test_objects"]["auroc"] == metrics["auroc"]
    images = np.random.default_rng(0).uniform(size=(3, *run.image_shape)).astype(np.float32)
    np.testing.assert_allclose(loaded.score(images).image, run.score(images).image, rtol=1e-5)
    pixels = np.full((64, 64), 128, np.uint8)
    np.testing.assert_array_equal(loaded.preprocess(pixels), run.preprocess(pixels))
    rate = card["calibration_patients"]
    assert jaxad.load_calibration(path).num_patients == rate


@pytest.mark.long
def test_sigterm_saves_and_leaves_with_zero_and_the_same_command_finishes(
    launch_environment, launch, data_root, tmp_path
):
    arguments = [
        "--config=pchvae:smoke",
        f"--workdir={tmp_path}",
        f"--config.data.root={data_root}",
        "--config.train.num_epochs=12",
        "--mode=train",
    ]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), *arguments],
        env=launch_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 240
    metrics = tmp_path / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "SIGTERM: saved step" in output
    result = launch(*arguments)
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps[-1] == 60  # 12 epochs of 80 images, 16 a step
