"""Kill -9 during a run and a study: nothing is lost, of a run to the last bit.

Long: a run of more than a minute and more than ten saves, twice. Prints the phase of every kill
(`pytest -m long -n 0 -s tests/test_kill.py`).
"""

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
from jaxad.train.writer import read_metrics

ROOT = Path(__file__).parent.parent

STEPS, EVERY = 4200, 350
TEMPORARY = "*orbax-checkpoint-tmp*"
#: Where each kill falls: after so many seconds of stepping, or as soon as a save has begun.
KILLS = ("moment", "save", "moment", "save", "moment")


def arguments(workdir: Path, data_root: Path) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "launch.py"),
        "--config=pchvae:smoke",
        f"--workdir={workdir}",
        "--mode=train",
        f"--config.data.root={data_root}",
        # 4 subjects of 20 slices in batches of 16.
        f"--config.train.num_epochs={STEPS * 16 / 80}",
        f"--config.train.checkpoint_every_steps={EVERY}",
    ]


def newest_step(workdir: Path) -> int:
    rows = read_metrics(workdir / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


def saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob(TEMPORARY))


def wait_for_the_moment(process: subprocess.Popen, workdir: Path, kind: str, seconds: float):
    """Returns when it is time to kill; a run that ends by itself fails the test."""
    resumed = newest_step(workdir)
    deadline = time.monotonic() + 240
    stepping_since = None
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it was killed"
        if kind == "save":
            if newest_step(workdir) > resumed and saving(workdir):
                return
            time.sleep(0.0005)
            continue
        if stepping_since is None and newest_step(workdir) > resumed:
            stepping_since = time.monotonic()
        if stepping_since is not None and time.monotonic() - stepping_since >= seconds:
            return
        time.sleep(0.01)
    raise AssertionError("the moment never came")


def parameters(workdir: Path) -> list[np.ndarray]:
    found = jaxad.load(workdir)
    assert found.step == STEPS
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found.variables)]


@pytest.mark.long
def test_five_kills_two_inside_a_save(launch_environment, data_root, tmp_path):
    def start(workdir: Path) -> subprocess.Popen:
        return subprocess.Popen(
            arguments(workdir, data_root),
            env=launch_environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    validations = [row for row in read_metrics(whole / "metrics.jsonl") if "validation_loss" in row]
    assert len(validations) >= 10
    print(f"\nuninterrupted: {len(validations)} saves")

    generator = random.Random(0)
    inside = 0
    for number, kind in enumerate(KILLS):
        seconds = generator.uniform(1, 8)
        process = start(killed)
        wait_for_the_moment(process, killed, kind, seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left = saving(killed)
        inside += left
        print(
            f"kill {number + 1}: {kind}, last logged step {newest_step(killed)}, "
            f"{'inside a save (a temporary folder is left)' if left else 'between saves'}"
        )
    assert inside >= 2, "no luck with the saves: run again"
    process = start(killed)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors

    for ours, theirs in zip(parameters(killed), parameters(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    steps = [
        row["step"] for row in read_metrics(killed / "metrics.jsonl") if "validation_loss" in row
    ]
    assert steps == list(range(EVERY, STEPS + 1, EVERY))
    assert not saving(killed)


@pytest.mark.long
def test_a_study_is_killed_and_finished(launch_environment, data_root, tmp_path):
    """Two seeds as one program, then one alone: killed in training and between evaluations."""
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        "--mode=study",
        "--config=studies/pchvae_table1:smoke",
        f"--workdir={tmp_path}",
        f"--config.data.root={data_root}",
        "--config.seeds=(0,1,2)",
        "--config.seeds_per_program=2",
        "--config.num_epochs=40",
    ]
    runs = tmp_path / "runs" / "chvae"  # the first experiment
    moments = {
        "in training": lambda: newest_step(runs / "seed_1") > 20,
        "between the evaluations of a group": lambda: (runs / "seed_0/report.html").exists(),
        "in the last seed's training": lambda: newest_step(runs / "seed_2") > 20,
    }
    for name, reached in moments.items():
        process = subprocess.Popen(
            command, env=launch_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline, name
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print(f"killed {name}")
    assert (runs / "seed_0/report.html").exists() and not (runs / "seed_2/report.html").exists()
    result = subprocess.run(
        command, env=launch_environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert result.returncode == 0, result.stderr
    for experiment in ("chvae", "highvae", "lowvae", "pchvae", "vqvae2"):
        for seed in range(3):
            # 40 epochs of 80 images, 16 a step.
            assert jaxad.load(tmp_path / "runs" / experiment / f"seed_{seed}").step == 200
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert any(row.startswith("test_objects,chvae,auroc,") for row in rows)
