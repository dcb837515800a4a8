"""The record of when, how long and on what a run was made."""

import time

import jax

import jaxad
from jaxad.storage import history
from jaxad.storage.workdir import Workdir


def test_each_training_and_the_last_evaluation_have_an_entry(tmp_path):
    run = Workdir(tmp_path)
    assert history.read(run) == {}
    first = history.TrainingEntry(run, time.monotonic() - 30, resumes=False)
    first.update(0)
    first.update(10)
    with history.evaluation(run, ("test",)):
        pass
    second = history.TrainingEntry(run, time.monotonic(), resumes=True)
    second.update(5)
    with history.evaluation(run, ("test", "test_b")):
        pass
    record = history.read(run)
    assert [entry["steps"] for entry in record["training"]] == [10, 5]
    assert 30 <= record["training"][0]["seconds"] < 60 and record["training"][1]["seconds"] < 30
    assert record["evaluation"]["splits"] == ["test", "test_b"]
    for entry in (*record["training"], record["evaluation"]):
        assert (entry["jaxad"], entry["jax"]) == (jaxad.__version__, jax.__version__)
        assert entry["device"] == f"{len(jax.devices())} CPU"
        assert time.strptime(entry["started"], "%Y-%m-%d %H:%M UTC")


def test_a_run_that_begins_again_has_a_new_record(tmp_path):
    run = Workdir(tmp_path)
    for _ in range(2):
        history.TrainingEntry(run, time.monotonic(), resumes=False).update(3)
    assert len(history.read(run)["training"]) == 1


def test_a_damaged_record_is_none(tmp_path):
    run = Workdir(tmp_path)
    run.history.write_text("{")
    assert history.read(run) == {}
