"""Metrics on disk: each step once, torn lines dropped, a full disk reported in one line."""

import errno
import io
import json
import os

import pytest

from jaxad.errors import RunError
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.storage.workdir import Workdir
from jaxad.train.writer import MetricsWriter, read_metrics


def test_a_resumed_run_writes_each_step_once(tmp_path):
    run = Workdir(tmp_path)
    with MetricsWriter(run, 0) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": float(step)})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    with MetricsWriter(run, 2) as writer:
        writer.write(3, {"loss": 30.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(run.metrics)] == [
        (1, 1.0), (2, 2.0), (3, 30.0),
    ]  # fmt: skip
    assert all(json.loads(line) for line in run.metrics.read_text().splitlines())


def test_damaged_lines_are_reported(tmp_path, capsys):
    metrics = Workdir(tmp_path).metrics
    metrics.write_bytes(b'{"step": 1}\n{"st\xff\n{"step": 3}\n{"step"')
    assert [row["step"] for row in read_metrics(metrics)] == [1, 3]
    assert f"'{metrics}': damaged lines are skipped: [2]." in capsys.readouterr().err


def test_a_full_disk_at_tensorboard_events_is_one_line(tmp_path, monkeypatch):
    message = "/run/tensorboard/events.1; No space left on device\n\tFailed to flush 6 events"
    tf = tensorflow()

    def scalar(name, value):
        raise tf.errors.ResourceExhaustedError(None, None, message)

    with MetricsWriter(Workdir(tmp_path), 0) as writer:
        monkeypatch.setattr(tf.summary, "scalar", scalar)
        with pytest.raises(RunError, match=r"tensorboard' cannot be written \(No space left on de"):
            writer.write(1, {"loss": 1.0})


@pytest.mark.parametrize("at", ["write", "close"])
def test_a_full_disk_names_the_file(tmp_path, at):
    """Also if closing the file tries to write the row again."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            self.flush()

    with pytest.raises(OSError, match="No space left") as raised:  # noqa: SIM117
        with MetricsWriter(Workdir(tmp_path), 0) as writer:
            writer._lines.close()
            writer._lines = Full()
            if at == "write":
                writer.write(1, {"loss": 1.0})
    assert raised.value.filename == str(tmp_path / "metrics.jsonl")
