"""The report says how a run was made, how to repeat it, and whether its results are up to date."""

import html
import json
import re

import numpy as np
import pytest
from fake_runs import (
    add_calibration,
    add_scores,
    add_split,
    add_training,
    interval,
    make_metrics,
    make_workdir,
    read,
    visible,
)

from jaxad.config import get_config, run_config, to_json
from jaxad.models import SYSTEMS
from jaxad.report.record import stale_text
from jaxad.report.run_files import read_run
from jaxad.storage.workdir import Workdir, write_json

ENTRY = {"device": "2 CPU", "jaxad": "0.1.0", "jax": "0.10.2"}


def test_when_how_long_and_on_what_a_run_was_made(tmp_path):
    workdir = make_workdir(tmp_path / "run")
    add_training(workdir)  # 40 steps
    first = ENTRY | {"started": "2026-01-01 10:00 UTC", "seconds": 100.0, "steps": 10}
    second = first | {"started": "2026-01-02 10:00 UTC", "device": "1 H200", "steps": 25}
    evaluated = ENTRY | {"started": "2026-01-02 11:00 UTC", "seconds": 7.0, "splits": ["test_a"]}
    write_json(workdir.history, {"training": [first, second], "evaluation": evaluated})
    text = visible(read(workdir))
    assert (
        "Trained 2026-01-01 10:00 UTC, in 3 min on 2 CPU, then 1 H200; in 2 parts, the last one "
        "from 2026-01-02 10:00 UTC; the time of 5 of 40 updates is not recorded; jaxad 0.1.0, jax "
        "0.10.2"
    ) in text
    assert "Evaluated 2026-01-02 11:00 UTC, in 7 s on 2 CPU; jaxad 0.1.0, jax 0.10.2" in text
    assert "Training took 3 min on 2 CPU, then 1 H200." in text
    workdir.history.unlink()
    text = visible(read(workdir))
    assert "Trained" not in text and "Evaluated" not in text and "Training took" not in text


def test_the_command_that_repeats_the_run_names_no_path(tmp_path):
    workdir = Workdir(tmp_path / "run 1")
    config = get_config("ae:smoke")
    config.data.name, config.data.root = "folder", "/home/Mrs. Miller"
    config.optim.learning_rate = 0.5
    run_config.write(workdir, config)
    page = html.unescape(read(workdir))
    command = re.search(r'<pre class="command">(python launch.py --config.*)</pre>', page)[1]
    assert command == (
        "python launch.py --config=ae:smoke --workdir='run 1' --config.data.name=folder "
        "--config.data.root=PATH --config.optim.learning_rate=0.5"
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_sign_and_scale_of_the_score_are_explained(tmp_path, name):
    workdir = make_workdir(tmp_path, name)
    weights = {"nll": 1.0, "kl": 0.5, "other": 0.0}
    add_scores(workdir, "test_a", [0, 1, 1], [0.5, 1.5, 2.5])
    write_json(workdir.evaluation("test_a") / "metrics.json", make_metrics(score_weights=weights))
    text = html.unescape(visible(read(workdir)))
    assert "Each slice has a score; higher is more anomalous." in text
    assert f"score is {SYSTEMS[name].score}. Score = nll + 0.5 kl ." in text


@pytest.mark.parametrize("splits", [{"train": {"images": 100}}, None])
def test_an_early_stop_is_recorded(tmp_path, splits):
    workdir = make_workdir(tmp_path)
    losses = [3.0, 2.0, 2.5, 2.5]
    rows = [{"step": 10 * n, "validation_loss": loss} for n, loss in enumerate(losses, 1)]
    workdir.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Stopped early" not in read(workdir)  # it may not stop early
    config = run_config.read(workdir).unlock()
    config.train.early_stopping, config.train.num_epochs, config.data.batch_size = 2, 50, 5
    workdir.config.write_text(to_json(config))
    if splits:
        write_json(workdir.splits, splits)
    planned = " of 1,000" if splits else ""  # 50 passes over 100 images, 5 at a time
    expected = f"Stopped early at step 40{planned}; validations without a lower loss: 2. "
    assert f"{expected}The validation loss chose the step" in visible(read(workdir))
    if splits:  # the planned end: 2 passes over 100 images
        config.train.num_epochs = 2
        workdir.config.write_text(to_json(config))
        assert "Stopped early" not in read(workdir)


def test_results_of_an_older_checkpoint_are_stale(tmp_path, capsys):
    workdir = make_workdir(tmp_path)
    add_split(workdir, "test_a", names=[])  # evaluated at checkpoint 100
    unfinished = "150.orbax-checkpoint-tmp"
    for name in ("50", "100", unfinished):
        (workdir.checkpoints / name).mkdir(parents=True)
    assert "these results" not in read(workdir).lower()
    assert not capsys.readouterr().err
    (workdir.checkpoints / "120").mkdir()
    text = "results are of checkpoint 100; the run is now at 120: evaluate again"
    assert f"These {text}" in visible(read(workdir))
    error = capsys.readouterr().err
    assert f"these {text}" in error and error.count("\n") == 1
    site = make_metrics(external={}, checkpoint_step=120)
    workdir.evaluation("site").mkdir()
    write_json(workdir.evaluation("site") / "metrics.json", site)
    text = "the results on test_a are of checkpoint 100; the run is now at 120"
    assert stale_text(read_run(workdir)).startswith(text)


def test_a_calibration_of_an_older_checkpoint_is_stale(tmp_path):
    workdir = make_workdir(tmp_path)
    write_json(workdir.history, {"evaluation": {"splits": []}})
    add_calibration(workdir, np.linspace(0, 1, 40), [f"n{i}" for i in range(40)])
    (workdir.checkpoints / "120").mkdir(parents=True)
    run = read_run(workdir)
    assert stale_text(run).startswith("the calibration is of checkpoint 100; the run is now at 120")


def test_figures_have_the_decimals_of_their_metric(tmp_path):
    workdir = make_workdir(tmp_path)
    workdir.evaluation("test_a").mkdir(parents=True)
    metrics = {"psnr": interval(23.456, 0.21), "mse": interval(0.0123456, 0.001)}
    write_json(workdir.evaluation("test_a") / "metrics.json", metrics)
    text = visible(read(workdir))
    assert "PSNR), dB 23.5 23.2 to 23.7" in text
    assert "(MSE) 0.01235 0.01135 to 0.01335" in text


def test_files_that_were_left_out_are_counted(tmp_path):
    workdir = make_workdir(tmp_path)
    workdir.evaluation("test_a").mkdir(parents=True)
    counts = {"num_images": 9, "num_patients": 4, "num_files_skipped": 2, "num_blank_images": 3}
    counts["num_noisy_files"] = 25
    path = workdir.evaluation("test_a") / "metrics.json"
    write_json(path, {**counts, "num_training_files_skipped": 0, "auroc": interval(0.6)})
    text = visible(read(workdir))
    assert (
        "9 images, 4 patients, 2 files skipped, 3 blank images left out, "
        "25 files with a noisy background." in text
    )
    ones = {"num_images": 1, "num_patients": 1, "num_training_files_skipped": 1}
    write_json(path, {**ones, "num_training_blank_images": 1, "auroc": interval(0.6)})
    text = "1 image, 1 patient, 1 training file skipped, 1 blank training image left out."
    assert text in visible(read(workdir))
    counts = {"num_images": 9, "num_blank_images": 0, "num_noisy_files": 0}
    write_json(path, {**counts, "auroc": interval(0.6)})
    assert "9 images." in visible(read(workdir))
    counts = dict.fromkeys(("num_images", "num_patients", "num_files_skipped"), 1)
    write_json(path, {**counts, "auroc": interval(0.6)})
    assert "1 image, 1 patient, 1 file skipped." in visible(read(workdir))
