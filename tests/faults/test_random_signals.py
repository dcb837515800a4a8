"""Signals at random moments: each ends its command in time, and the same command resumes.

    JAXAD_SIGNALS=200,100 pytest -m long -n 0 -s tests/faults/test_random_signals.py

sends so many SIGINT and SIGTERM, to the process or to its group, from 0.2 s after the start to the
end of a fit or of a score run, and prints a line for each: when, to what, and what came of it.
"""

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from background import heeding_signals

import jaxad
from jaxad.runtime import interrupts

LAUNCH = Path(__file__).parent.parent.parent / "launch.py"
#: A signal is acted on within so many seconds: the grace period, and what a loaded machine needs.
IN_TIME = 5.0

SIGNALS = [int(count) for count in os.environ.get("JAXAD_SIGNALS", "20,10").split(",")]
SEED = int(os.environ.get("JAXAD_SIGNALS_SEED", "0"))
SMOKE = (
    "--config=pchvae:smoke",
    "--config.train.num_epochs=8",
    "--config.train.checkpoint_every_steps=7",
)


class Command:
    """A command that resumes in its folder when it is started again, and its results."""

    def __init__(self, name, arguments, results, make_folder, environment):
        self.name = name
        self._arguments, self._results = arguments, results
        self._make_folder, self._environment = make_folder, environment
        self.folder = make_folder()

    def start(self):
        return subprocess.Popen(
            heeding_signals([sys.executable, str(LAUNCH), *self._arguments(self.folder)]),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self):
        """Runs to the end; returns the results as text."""
        process = self.start()
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        return [(self.folder / name).read_text() for name in self._results]

    def begin_anew(self):
        self.folder = self._make_folder()


def send(process, number: signal.Signals, to_group: bool):
    """Sends a signal like a terminal or `kill`; returns exit code, output, and seconds."""
    start = time.monotonic()
    if to_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err, time.monotonic() - start


def check_end(code: int, out: str, err: str, seconds: float, number: signal.Signals) -> str:
    """Checks that a command ended as specified; returns how, in a word."""
    printed = out + err
    assert "Traceback" not in printed, printed
    if "saved step" in out:
        assert code == (1 if number == signal.SIGINT else 0), printed
        return "saved"
    if interrupts.MESSAGE in err:
        assert code == 1, printed
        assert seconds < IN_TIME, f"{seconds:.1f} s\n{printed}"
        return "interrupted"
    assert code == 0 and seconds < IN_TIME, printed  # it was about to end
    return "done"


@pytest.mark.long
def test_signals_at_random_moments(launch_environment, data_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    fit = [*SMOKE, f"--config.data.root={data_root}"]
    images = tmp_path_factory.mktemp("images") / "images.npz"
    _write_images(images, data_root)

    def new_folder():
        return tmp_path_factory.mktemp("command") / "out"

    commands = [
        Command(
            "fit", lambda folder: [*fit, f"--workdir={folder}"],
            ["eval/test_objects/scores.csv", "eval/test_lesions/scores.csv"],
            new_folder, launch_environment,
        ),
        Command(
            "score",
            lambda folder: [
                "--mode=score", f"--workdir={run}", f"--input={images}", f"--output={folder}",
            ],
            ["scores.csv", "patients.csv"], new_folder, launch_environment,
        ),
    ]  # fmt: skip
    trained = Command("fit", lambda folder: [*fit, f"--workdir={run}"], [], lambda: run,
                      launch_environment)  # fmt: skip
    trained.finish()
    expected, longest = {}, {}
    for command in commands:
        start = time.monotonic()
        expected[command.name] = command.finish()
        longest[command.name] = time.monotonic() - start
        command.begin_anew()
    rng = random.Random(SEED)
    numbers = [signal.SIGINT] * SIGNALS[0] + [signal.SIGTERM] * SIGNALS[1]
    rng.shuffle(numbers)
    ends: collections.Counter = collections.Counter()
    for count, number in enumerate(numbers, 1):
        command = rng.choice(commands)
        moment, to_group = rng.uniform(0.2, longest[command.name]), rng.random() < 0.5
        process = command.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        if process.poll() is None:
            end = send(process, number, to_group)
            how = check_end(*end, number)
            print(f"{count}: {command.name} {number.name} at {moment:.1f} s"
                  f"{' to the group' if to_group else ''}: {how} after {end[3]:.1f} s, "
                  f"exit code {end[0]}", flush=True)  # fmt: skip
        else:
            process.communicate()
            assert process.returncode == 0
            how = "had ended"
        ends[command.name, number.name, how] += 1
        if how in ("done", "had ended") or count % 10 == 0:
            assert command.finish() == expected[command.name]
            command.begin_anew()
    for command in commands:
        assert command.finish() == expected[command.name]
    print(dict(ends))


def _write_images(path: Path, data_root: Path) -> None:
    """Writes a test split's images, repeated so that scoring takes some seconds."""
    config = jaxad.get_config("pchvae:smoke").unlock()
    config.data.root = str(data_root)
    split = jaxad.load_data(config).split("test_objects")
    count = 20
    np.savez(
        path,
        image=np.concatenate([split.images] * count),
        id=np.asarray([f"{number}-{name}" for number in range(count) for name in split.ids]),
        group=np.asarray([f"{number}-{name}" for number in range(count) for name in split.groups]),
    )
