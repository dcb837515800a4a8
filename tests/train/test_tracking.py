"""Tracking services get every step once, and can neither stop nor delay a run."""

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from jaxad import run as launched
from jaxad.config import fields, get_config, study_run, to_json
from jaxad.config.studies import study
from jaxad.errors import UserError
from jaxad.runtime import interrupts, processes
from jaxad.storage.workdir import Workdir
from jaxad.train import checks, tracking
from jaxad.train.tracking import tracked
from jaxad.train.tracking_process import Rows, evaluation_metrics, run_name
from jaxad.train.tracking_services import SERVICES
from jaxad.train.writer import MetricsWriter

FAKES = Path(__file__).parent / "fake_trackers"
METRICS = {
    "auroc": {"value": 0.9, "low": 0.8, "high": None},
    "decisions": {"sensitivity": {"value": 0.5}, "images_are_patients": True},
    "reference_encoder": "EfficientNet",
    "checkpoint_step": 3,
    "trivial": {"mean": {"auroc": {"value": 0.6}}},
}


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """A function that returns the calls of the fake package `wandb` up to now."""
    calls = tmp_path / "calls.jsonl"
    calls.touch()
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("FAKE_CALLS", str(calls))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)

    def read(name=None):
        pairs = [json.loads(line) for line in calls.read_text().splitlines()]
        return pairs if name is None else [value for key, value in pairs if key == name]

    return read


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "my_run"
    folder.mkdir()
    return Workdir(folder)


def tracked_config(*writers):
    config = get_config("pchvae:smoke")
    config.data.root = "/home/a_person/data"
    config.train.writers = writers
    return config


def write_run(workdir, config, start, end, *, evaluates=False):
    """Writes what a run writes: two rows a step."""
    workdir.config.write_text(to_json(config))
    with MetricsWriter(workdir, start, tensorboard=False) as writer:
        for step in range(start + 1, end + 1):
            writer.write(step, {"train/loss": 1 / step})
            writer.write(step, {"validation/loss": 2 / step})
    if evaluates:
        folder = workdir.evaluation("test")
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(METRICS))


# --- What is read from the run's folder.


def test_rows_are_merged_by_step_and_wait_for_the_next_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = Rows(path)
    assert rows.read(is_end=False) == []
    path.write_text('{"step": 1, "a": 1}\n{"step": 1, "b": 2}\n{"step": 2, "a": 3}\n{"step')
    assert rows.read(is_end=False) == [(1, {"a": 1, "b": 2})]
    with path.open("a") as file:
        file.write('": 3, "a": 4}\n{"damaged\n')
    assert rows.read(is_end=False) == [(2, {"a": 3})]
    assert rows.read(is_end=True) == [(3, {"a": 4})]
    assert rows.read(is_end=True) == []


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n')
    rows = Rows(path)
    assert rows.read(is_end=True) == [(1, {"a": 1}), (2, {"a": 2})]
    (tmp_path / "new").write_text('{"step": 1, "a": 1}\n')
    (tmp_path / "new").replace(path)
    assert rows.read(is_end=True) == [(1, {"a": 1})]


def test_the_numbers_of_an_evaluation_have_short_names(workdir):
    write_run(workdir, tracked_config(), 0, 1, evaluates=True)
    # Another site, evaluated with an earlier checkpoint, whose name must not be sent.
    other = workdir.evaluation("z_hospital")
    other.mkdir()
    site = METRICS | {"checkpoint_step": 1, "external": {"root": "z_hospital"}}
    (other / "metrics.json").write_text(json.dumps(site))
    assert evaluation_metrics(workdir) == (
        3,
        {
            "test/auroc": 0.9,
            "test/auroc/low": 0.8,
            "test/decisions/sensitivity": 0.5,
            "test/checkpoint_step": 3.0,
        },
    )


def test_runs_of_a_study_are_named_by_study_experiment_and_seed(tmp_path):
    folder = tmp_path / "table1" / "runs" / "pchvae" / "seed_0"
    folder.mkdir(parents=True)
    assert run_name(folder) == ("seed_0", "")  # an ordinary folder
    (tmp_path / "table1" / "study.json").touch()
    assert run_name(folder) == ("table1/pchvae/seed_0", "table1/pchvae")
    assert run_name(Path("/run")) == ("run", "")


# --- What is sent, and what happens when that fails.


def test_a_run_is_sent_with_its_config_metrics_and_evaluation(fakes, workdir, capsys):
    config = tracked_config("wandb", "wandb")
    with tracked([config], [workdir]):
        write_run(workdir, config, 0, 3, evaluates=True)
    (init,) = fakes("init")
    assert init["name"] == "my_run" and init["project"] == "jaxad" and init["resume"] == "allow"
    assert init["dir"] == str(workdir.path) and init["heavy"] == []
    assert init["settings"] == {  # paths of the command line stay here
        "console": "off", "disable_git": True, "x_disable_meta": True, "x_stats_pid": os.getpid(),
    }  # fmt: skip
    assert (workdir.path / "tracking" / "wandb.id").read_text() == init["id"]
    parameters = fakes("config")[0]
    assert parameters["config.model.name"] == config.model.name
    assert "a_person" not in json.dumps(parameters)
    assert fakes("log") == [
        {"step": step, "train/loss": 1 / step, "validation/loss": 2 / step} for step in (1, 2, 3)
    ]
    (summary,) = fakes("summary")
    assert summary["test/auroc"] == 0.9 and summary["evaluation/checkpoint_step"] == 3
    assert fakes()[-1] == ["finish", 0]
    assert "Weights & Biases: https://fake\n" in capsys.readouterr().out


def test_variables_of_the_package_win(fakes, workdir, monkeypatch, tmp_path):
    for name, value in {"NAME": "mine", "RUN_GROUP": "ours", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    config = tracked_config("wandb")
    with tracked([config], [workdir]):
        write_run(workdir, config, 0, 1)
    (init,) = fakes("init")
    assert (init["name"], init["group"], init["dir"]) == ("mine", "ours", str(tmp_path))


def test_after_a_kill_the_same_run_continues_and_no_step_is_sent_twice(fakes, workdir):
    config = tracked_config("wandb")
    (follower,) = tracking._start(config, workdir)
    write_run(workdir, config, 0, 5)
    while len(fakes("log")) < 4:
        time.sleep(0.05)
    follower._process.stdin.close()  # as the system does when it kills this process
    follower.wait(time.monotonic() + 60, is_interrupted=False)
    assert [row["step"] for row in fakes("log")] == [1, 2, 3, 4]  # 5 might lack its validation
    assert fakes()[-1] == ["finish", 255]
    with tracked([config], [workdir]):
        write_run(workdir, config, 3, 7)  # the last checkpoint was that of step 3
    assert [row["step"] for row in fakes("log")] == [1, 2, 3, 4, 5, 6, 7]
    first, second = fakes("init")
    assert first["id"] == second["id"]
    assert fakes()[-1] == ["finish", 0]


@pytest.mark.parametrize(
    "behaviour, reason",
    [
        ("fail in init", "no API key configured"),
        ("fail in log", "the network is down"),
        ("crash in log", "the sending process ended with code -9"),
    ],
)
def test_a_failure_is_one_warning_and_the_next_command_sends_the_rest(
    fakes, workdir, monkeypatch, capsys, behaviour, reason
):
    config = tracked_config("wandb")
    monkeypatch.setenv("FAKE_BEHAVIOUR", behaviour)
    with tracked([config], [workdir]):
        write_run(workdir, config, 0, 2)
    assert capsys.readouterr().err == (
        f"warning: Weights & Biases: {reason}. The run is not affected; the next command in the "
        "same folder sends what is missing.\n"
    )
    monkeypatch.delenv("FAKE_BEHAVIOUR")
    with tracked([config], [workdir]):
        pass
    assert [row["step"] for row in fakes("log")] == [1, 2]


def test_a_service_that_hangs_is_ended(fakes, workdir, monkeypatch, capsys):
    config = tracked_config("wandb")
    monkeypatch.setenv("FAKE_BEHAVIOUR", "hang in finish")
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 2.0)
    monkeypatch.setattr(tracking, "_late", set())
    with tracked([config], [workdir]):
        write_run(workdir, config, 0, 2)
        while len(fakes("log")) < 1:
            time.sleep(0.05)
    assert "warning: Weights & Biases: not everything was sent in 2 s." in capsys.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(fakes("init")[0]["pid"], 0)
    assert tracking._late == {"wandb"}  # the other runs of a study wait less


@pytest.mark.parametrize("error, code", [(RuntimeError, 1), (interrupts.Stopped, 255)])
def test_the_service_learns_how_the_run_ended(fakes, workdir, error, code):
    config = tracked_config("wandb")
    with pytest.raises(error), tracked([config], [workdir]):
        write_run(workdir, config, 0, 2)
        raise error
    assert fakes("finish") == [code]
    assert [row["step"] for row in fakes("log")] == [1, 2]


def test_a_signal_does_not_wait_for_a_service_that_hangs(fakes, workdir, monkeypatch):
    config = tracked_config("wandb")
    monkeypatch.setenv("FAKE_BEHAVIOUR", "hang in finish")
    monkeypatch.setattr(tracking, "_AFTER_SAVE", 0.1)
    (follower,) = tracking._start(config, workdir)
    monkeypatch.setattr(tracking, "_start", lambda *_: iter([follower]))
    with pytest.raises(interrupts.Stopped), tracked([config], [workdir]):
        raise interrupts.Stopped
    assert follower._process.poll() is None  # it ends by itself
    follower._kill()


def test_a_run_that_never_began_is_not_sent(fakes, workdir):
    with pytest.raises(UserError), tracked([tracked_config("wandb")], [workdir]):
        raise UserError("bad data")
    assert fakes() == []


# --- Which services there are, and when one is used.


def test_the_field_lists_the_services():
    (field,) = (field for field in fields.FIELDS if field.path == "train.writers")
    assert field.allowed == ("tensorboard", *SERVICES)
    with pytest.raises(UserError, match="did you mean 'tensorboard'. known: tensorboard, wandb"):
        checks.check(tracked_config("tensorbord"))


def test_nothing_starts_unless_the_config_names_it(fakes, workdir, monkeypatch):
    barriers = []
    monkeypatch.setattr(processes, "barrier", barriers.append)
    monkeypatch.setattr(tracking.subprocess, "Popen", None)  # calling it would fail
    assert get_config("pchvae").train.writers == ("tensorboard",)
    with tracked([get_config("pchvae")], [workdir]):
        pass
    assert not barriers
    monkeypatch.setattr(processes, "is_first", lambda: False)
    with tracked([tracked_config("wandb")], [workdir]):  # only the first process sends
        pass
    assert len(barriers) == 1  # and the others wait until it has
    assert not list(workdir.path.iterdir())


@pytest.mark.parametrize("name", SERVICES)
def test_a_missing_package_is_one_line_before_data_are_read(name, monkeypatch, workdir, capsys):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    line = rf"needs the package '{name}'; install it with pip install 'jaxad\[{name}\]', or leave"
    with pytest.raises(UserError, match=line):
        launched.fit(tracked_config(name), workdir.path)
    with tracked([tracked_config(name)], [workdir]):  # an evaluation continues
        pass
    assert capsys.readouterr().err.startswith("warning: config.train.writers: ")


def test_a_study_sets_the_writers_of_all_runs():
    config = study({"a": get_config("pchvae:smoke")}, seeds=(0,))
    config.writers = ("mlflow",)
    assert study_run(config, "a", 0).train.writers == ("mlflow",)
    with pytest.raises(UserError, match="different train.writers"):
        study({"a": get_config("pchvae:smoke"), "b": tracked_config("wandb")}, seeds=(0,))


def test_training_stops_at_a_signal_and_resumes_as_the_same_run(
    fakes, config, tmp_path, monkeypatch
):
    config.train.writers, config.train.log_every_steps = ("wandb",), 1
    write = MetricsWriter.write

    def write_and_terminate(self, step, metrics):
        write(self, step, metrics)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MetricsWriter, "write", write_and_terminate)
    with pytest.raises(interrupts.Stopped):
        launched.train(config, tmp_path / "run")
    monkeypatch.setattr(MetricsWriter, "write", write)
    launched.train(config, tmp_path / "run")
    assert [row["step"] for row in fakes("log")] == list(range(1, 9))
    assert fakes("finish") == [255, 0]
    first, second = fakes("init")
    assert first["id"] == second["id"]
    assert not (tmp_path / "run" / "tensorboard").exists()


# --- The real packages, where they are installed.


def test_the_real_wandb_offline(workdir, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'jaxad[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = tracked_config("wandb")
    for start, end in ((0, 2), (2, 4)):
        with tracked([config], [workdir]):
            write_run(workdir, config, start, end)
    (name,) = [(workdir.path / "tracking" / "wandb.id").read_text()]
    stored = sorted((workdir.path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(stored) == 2
    assert b"config.model.name" in stored[1].read_bytes()
    assert b"a_person" not in stored[1].read_bytes()
    assert "less than the current step" not in (workdir.path / "tracking/wandb.log").read_text()


def test_the_real_mlflow_in_a_database(workdir, monkeypatch, tmp_path):
    pytest.importorskip("mlflow", reason="pip install 'jaxad[mlflow]'")
    pytest.importorskip("sqlalchemy", reason="pip install 'jaxad[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = tracked_config("mlflow")
    for start, end, length in ((0, 2, 1.0), (1, 4, 2.0)):
        config.train.num_epochs = length
        with tracked([config], [workdir]):
            write_run(workdir, config, start, end, evaluates=start > 0)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = database.execute("select name, status from runs").fetchall()
        steps = "select step from metrics where key = ? order by step"
        training = database.execute(steps, ("train/loss",)).fetchall()
        evaluation = database.execute(steps, ("test/auroc",)).fetchall()
        lengths = "select value from {} where key = 'config.train.num_epochs'"
        parameter = database.execute(lengths.format("params")).fetchall()
        tag = database.execute(lengths.format("tags")).fetchall()
    database.close()
    assert runs == [("my_run", "FINISHED")]
    assert training == [(1,), (2,), (3,), (4,)] and evaluation == [(3,)]
    assert parameter == [("1.0",)] and tag == [("2.0",)]  # a parameter cannot change
