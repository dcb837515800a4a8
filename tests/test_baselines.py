"""The baselines of AE-FLOW's Table 1 under the contract of all systems, from fit to decision."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxad
from jaxad import run
from jaxad.models import title
from jaxad.train.writer import read_metrics

ROOT = Path(__file__).parent.parent

BASELINES = {
    "ae": ["mse"],
    "fanogan": ["feature_distance", "mse"],
    "ganomaly": ["code_distance", "mse"],
    "differnet": ["feature_nll", "latent_nll", "log_det"],
    "fastflow": ["feature_nll", "latent_nll", "log_det", "map_max", "map_mean", "top_tenth"],
}
#: Systems without updates, and their components.
FITTED = {
    "patchcore": ["distance", "weighted_distance"],
    "padim": ["distance", "mean_distance"],
}
PATIENTS, SLICES = 4, 4


@pytest.fixture(scope="module")
def npz_root(tmp_path_factory):
    """Noise with bright squares in the anomalous slices, and normal images of another site."""
    root = tmp_path_factory.mktemp("npz")
    rng = np.random.default_rng(0)
    for name in ("train", "val", "test_squares", "site"):
        images = rng.uniform(0.3, 0.5, size=(PATIENTS * SLICES, 32, 32)).astype("float32")
        groups = np.repeat([f"{name}-{patient}" for patient in range(PATIENTS)], SLICES)
        arrays = {"image": images, "group": groups, "position": np.tile(range(SLICES), PATIENTS)}
        if name == "test_squares":
            arrays["label"] = np.arange(len(images)) % 2
            arrays["mask"] = np.zeros(images.shape, np.uint8)
            arrays["mask"][::-2, 8:18, 8:18] = 1
            images[::-2, 8:18, 8:18] = 1.0
        folder = root / "other" if name == "site" else root
        folder.mkdir(exist_ok=True)
        np.savez(folder / f"{name}.npz", **arrays)
    return root


def tiny(system, npz_root):
    """The system's smoke config, smaller still."""
    config = jaxad.get_config(f"{system}:smoke").unlock()
    config.data.name, config.data.root, config.data.image_size = "npz", str(npz_root), 32
    config.data.batch_size, config.cpu_devices = 8, 8  # the session's CPU devices
    config.train.feature_cache = "off"
    if system not in FITTED:
        config.train.num_epochs = 5.0
    config.evaluate.num_examples, config.evaluate.batch_size = 1, 16
    if system in ("ae", "fanogan", "ganomaly"):
        config.model.widths, config.model.depth = (8, 8), 0
    else:
        config.model.weights = "random"
    if system in ("differnet", "fastflow"):
        config.model.num_blocks = 1
    if system == "differnet":
        config.model.scales, config.model.views = (1,), 2
    if system in ("differnet", "fastflow", *FITTED):
        config.model.strides = (8,)
    return config


def read_scores(workdir):
    with (workdir / "eval/test_squares/scores.csv").open() as file:
        return list(csv.DictReader(file))


# The trained and the fitted system that take the least time; the others run with -m long.
_QUICK = ("fanogan", "patchcore")


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(name, marks=() if name in _QUICK else pytest.mark.long)
        for name in (*BASELINES, *FITTED)
    ],
)
def test_a_fit_keeps_the_contract_and_another_site_recalibrates_it(system, npz_root, tmp_path):
    config = tiny(system, npz_root)
    run.fit(config, tmp_path)
    rows = read_scores(tmp_path)
    components = {**BASELINES, **FITTED}[system]
    quality = ["reconstruction_psnr", "reconstruction_ssim"] if "mse" in components else []
    header = ["id", "group", "position", "label", "score", *components, *quality]
    assert list(rows[0]) == [*header, "score_position_corrected"]
    path = tmp_path / "eval/test_squares/metrics.json"
    metrics = json.loads(path.read_text())
    for name in ("auroc", "average_precision", "pixel_auroc", "aupro", "best_dice"):
        assert set(metrics[name]) == {"value", "low", "high"}
    assert ("mse" in metrics) == ("mse" in components)
    report = (tmp_path / "report.html").read_text()
    assert title(system) in report and "Best F1 on the test split" in report
    detector = jaxad.load(tmp_path)
    with np.load(npz_root / "test_squares.npz") as arrays:
        scores = detector.score(detector.preprocess(arrays["image"]))
    written = [float(row["score"]) for row in rows]
    np.testing.assert_allclose(scores.image, written, rtol=1e-4)
    assert scores.pixel.shape == (PATIENTS * SLICES, 32, 32)

    # Decisions: by val, then by the other site, which the next evaluation keeps.
    assert metrics["decisions"]["calibration"] == "val"
    by_val = jaxad.load_calibration(tmp_path)
    assert by_val.num_patients == PATIENTS
    own = metrics["decisions"]["normal_images_only"]
    assert own["rate"] == pytest.approx(1 / (PATIENTS + 1))
    assert own["image"]["threshold"] == by_val.image_threshold(own["rate"])
    if system != "ae":
        return  # what follows is not the system's
    run.calibrate(config, tmp_path, normals=npz_root / "other/site.npz")
    by_site = jaxad.load_calibration(tmp_path)
    assert by_site.image_threshold(own["rate"]) != by_val.image_threshold(own["rate"])
    run.evaluate(config, tmp_path)
    decisions = json.loads(path.read_text())["decisions"]
    assert decisions["calibration"] == "site.npz"
    threshold = decisions["normal_images_only"]["image"]["threshold"]
    assert threshold == by_site.image_threshold(own["rate"])
    assert "of site.npz" in (tmp_path / "report.html").read_text()
    assert jaxad.load_calibration(tmp_path).image_threshold(own["rate"]) == threshold


@pytest.mark.long
@pytest.mark.parametrize("system", BASELINES)
def test_a_killed_run_goes_on_to_the_last_bit(
    system, launch_environment, data_root, tmp_path, launch
):
    """SIGKILL at two moments of a run of many checkpoints."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = [
        f"--config={system}:smoke",
        "--mode=train",
        f"--config.data.root={data_root}",
        "--config.data.batch_size=16",
        "--config.train.num_epochs=40",  # 200 updates of 80 images
        "--config.train.checkpoint_every_steps=20",
    ]
    done = launch(*arguments, f"--workdir={whole}", timeout=900)
    assert done.returncode == 0, done.stderr
    generator = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *arguments, f"--workdir={killed}"],
            env=launch_environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = len(read_metrics(killed / "metrics.jsonl"))
        deadline = time.monotonic() + 600
        while len(read_metrics(killed / "metrics.jsonl")) <= before + generator.randrange(5, 30):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = launch(*arguments, f"--workdir={killed}", timeout=900)
    assert done.returncode == 0, done.stderr
    detectors = [jaxad.load(folder) for folder in (whole, killed)]
    assert [detector.step for detector in detectors] == [200, 200]
    for ours, theirs in zip(
        *(jax.tree.leaves(detector.variables) for detector in detectors), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
def test_the_study_of_all_six_systems_writes_one_table(launch, data_root, tmp_path):
    arguments = ["--mode=study", "--config=studies/aeflow_table1:smoke", f"--workdir={tmp_path}"]
    result = launch(*arguments, f"--config.data.root={data_root}", timeout=1800)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "table.md").read_text()
    for system in (*BASELINES, "aeflow"):
        assert f"| {title(system)} |" in text
    for name in ("roc", "densities", "maps"):
        assert f"figures/{name}_test_objects.png" in text
        assert (tmp_path / f"figures/{name}_test_objects.png").exists()
