"""Stands in for the package `wandb`: records calls, or misbehaves as `FAKE_BEHAVIOUR` says.

A run's last step is that of the calls recorded so far, as if they had been sent.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

CALLS = Path(os.environ["FAKE_CALLS"])
BEHAVIOUR = os.environ.get("FAKE_BEHAVIOUR", "")


def record(name, value):
    with CALLS.open("a") as file:
        file.write(json.dumps([name, value]) + "\n")


class Settings:
    project = None

    def __init__(self, **fields):
        if unknown := fields.keys() - {"console", "disable_git", "x_disable_meta", "x_stats_pid"}:
            raise ValueError(f"extra inputs are not permitted: {unknown}")
        self.fields = fields


class _Session:
    settings = Settings()


def setup():
    return _Session()


class _Config:
    def update(self, values, *, allow_val_change):
        assert allow_val_change
        record("config", values)


class _Summary:
    def update(self, values):
        record("summary", values)


class _Run:
    url = "https://fake"
    config, summary = _Config(), _Summary()

    def __init__(self):
        calls = map(json.loads, CALLS.read_text().splitlines())
        self.step = max((value["step"] for name, value in calls if name == "log"), default=-1) + 1

    def log(self, metrics, *, step):
        if BEHAVIOUR == "fail in log":
            raise ConnectionError("the network is down\nand more")
        if BEHAVIOUR == "crash in log":
            os.kill(os.getpid(), signal.SIGKILL)
        record("log", {"step": step, **metrics})

    def finish(self, *, exit_code):
        if BEHAVIOUR == "hang in finish":
            time.sleep(600)
        record("finish", exit_code)


def init(**options):
    if BEHAVIOUR == "fail in init":
        raise RuntimeError("no API key configured.")
    options["settings"] = options["settings"].fields
    heavy = [name for name in ("jax", "tensorflow") if name in sys.modules]
    record("init", options | {"heavy": heavy, "pid": os.getpid()})
    return _Run()
