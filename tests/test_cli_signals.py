"""The command line under signals: exit codes, and what it says."""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest
from background import heeding_interrupts

from jaxad import cli, command
from jaxad.runtime import interrupts

SMOKE = "--config=pchvae:smoke"


@pytest.fixture
def in_the_foreground():
    with heeding_interrupts():
        yield


@pytest.mark.usefixtures("in_the_foreground")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_outside_of_training_is_an_interruption(capsys, monkeypatch, number):
    def work(arguments, program):
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 60  # a loaded machine may take long to deliver it
        while time.monotonic() < deadline:
            interrupts.check()

    monkeypatch.setattr(command, "run", work)
    before = signal.getsignal(number)
    assert cli.main([]) == 1
    assert "interrupted; run the same command" in capsys.readouterr().err
    assert signal.getsignal(number) == before


@pytest.mark.usefixtures("in_the_foreground")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)])
def test_a_training_that_a_signal_ended_and_saved(monkeypatch, tmp_path, number, code):
    def train(config, workdir):
        with interrupts.deferred():
            os.kill(os.getpid(), number)
            while not interrupts.requested():
                time.sleep(0.01)
            interrupts.acknowledge()
        raise interrupts.Stopped

    run = SimpleNamespace(train=train, configure_process=lambda *_: None)
    monkeypatch.setattr(command, "_import_run", lambda: run)
    assert cli.main([SMOKE, f"--workdir={tmp_path}", "--mode=train"]) == code


def test_an_error_that_a_signal_caused_in_a_worker_is_an_interruption(capsys, monkeypatch):
    def work(arguments, program):
        os.kill(os.getpid(), signal.SIGTERM)
        while not interrupts.requested():
            time.sleep(0.01)
        raise error

    monkeypatch.setattr(command, "run", work)
    error = BrokenProcessPool("a worker process was terminated")
    assert cli.main([]) == 1
    assert capsys.readouterr().err == f"{interrupts.MESSAGE}\n"
    error = ValueError("a bug of ours, which a signal does not hide")
    with pytest.raises(ValueError, match="a bug of ours"):
        cli.main([])
