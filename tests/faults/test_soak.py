"""Random systems on random layouts, interrupted and resumed at random: no hang, equal results.

    JAXAD_SOAK_MINUTES=120 pytest -m long -n 0 -s tests/faults/test_soak.py

Every round fits a small run, or scores with one, under signals and kills, and compares its tables,
to the last bit, with those of an uninterrupted run of the same layout. It prints a line for each
round: what was sent when, with which exit code, and the most memory that a process took.
"""

import collections
import dataclasses
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

ROOT = Path(__file__).parent.parent.parent
MINUTES = float(os.environ.get("JAXAD_SOAK_MINUTES", "2"))
SEED = int(os.environ.get("JAXAD_SOAK_SEED", "0"))
#: Nothing but a hang takes so long.
SECONDS = 600

SYSTEMS = (
    "pchvae", "chvae", "highvae", "lowvae", "vqvae2", "ae", "fanogan", "ganomaly", "differnet",
    "fastflow", "aeflow",
)  # fmt: skip
LAYOUTS = tuple(
    (f"--config.parallel={mode}", f"--config.cpu_devices={devices}",
     f"--config.train.steps_per_dispatch={updates}")
    for mode, devices, updates in (
        ("jit", 1, 1), ("jit", 2, 1), ("jit", 2, 4), ("jit", 4, 2), ("pmap", 2, 1), ("pmap", 4, 4),
    )
)  # fmt: skip
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


@dataclasses.dataclass
class Done:
    """The result of a command.

    Attributes:
        code: its exit code, negative for a signal.
        seconds: that it took.
        peak: MiB of memory at most.
        printed: by it.
    """

    code: int
    seconds: float
    peak: float
    printed: str


class Soak:
    """Runs commands and compares their results with those of uninterrupted runs."""

    def __init__(self, environment, data_root: Path, folder: Path):
        self._environment, self._data_root, self._folder = environment, data_root, folder
        self._expected: dict[tuple[str, ...], list[str]] = {}
        self._count = 0

    def new_folder(self) -> Path:
        self._count += 1
        return self._folder / f"{self._count}"

    def fit(self, system, layout, workdir):
        return [
            f"--config={system}:smoke", f"--workdir={workdir}",
            f"--config.data.root={self._data_root}", *layout,
        ]  # fmt: skip

    def score(self, system, workdir, output):
        size = jaxad.get_config(f"{system}:smoke").data.image_size
        images = self._folder / f"images_{size}.npz"
        if not images.exists():
            _write_images(images, size)
        return ["--mode=score", f"--workdir={workdir}", f"--input={images}",
                f"--output={output}", "--maps=none"]  # fmt: skip

    def start(self, arguments, log):
        return subprocess.Popen(
            heeding_signals([sys.executable, str(ROOT / "launch.py"), *arguments]),
            env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, arguments, number=None, moment=0.0) -> Done:
        """Runs a command and sends it a signal after some time."""
        path = self._folder / "output.txt"
        start, sent = time.monotonic(), False
        with path.open("w") as log:
            process = self.start(arguments, log)
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                seconds = time.monotonic() - start
                if pid:
                    break
                assert seconds < SECONDS, f"hangs: {arguments}\n{path.read_text()}"
                if number is not None and not sent and seconds > moment:
                    os.kill(process.pid, number)
                    sent = True
                time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(status)
        return Done(process.returncode, seconds, usage.ru_maxrss / 1024, path.read_text())

    def finish(self, arguments) -> Done:
        done = self.run(arguments)
        assert done.code == 0, done.printed
        return done

    def tables(self, workdir) -> list[str]:
        return [path.read_text() for path in sorted(workdir.glob("eval/*/scores.csv"))]

    def expected(self, system, layout) -> tuple[list[str], float]:
        """Returns the tables and the seconds of an uninterrupted run; cached."""
        key = (system, *layout)
        if key not in self._expected:
            workdir = self.new_folder()
            done = self.finish(self.fit(system, layout, workdir))
            self._expected[key] = (self.tables(workdir), done.seconds)
        return self._expected[key]


def interrupted(soak: Soak, arguments, longest: float, rng: random.Random) -> tuple[str, float]:
    """Runs a command to its end with interruptions; returns them and the peak memory."""
    story, peak = [], 0.0
    for _ in range(rng.randint(1, 3)):
        number, moment = rng.choice(INTERRUPTIONS), rng.uniform(0.2, longest)
        done = soak.run(arguments, number, moment)
        peak = max(peak, done.peak)
        assert "Traceback" not in done.printed, done.printed
        assert done.code in (0, 1, -signal.SIGKILL), done.printed
        if number != signal.SIGKILL and done.code:
            assert done.seconds < moment + 60, done.printed
        story.append(f"{number.name} at {moment:.1f} s: {done.code}")
    done = soak.finish(arguments)
    return ", ".join(story), max(peak, done.peak)


@pytest.mark.long
def test_soak(launch_environment, data_root, tmp_path):
    soak, rng = Soak(launch_environment, data_root, tmp_path), random.Random(SEED)
    end = time.monotonic() + 60 * MINUTES
    peaks: dict[str, list[float]] = collections.defaultdict(list)
    rounds = 0
    while time.monotonic() < end:
        system, layout = rng.choice(SYSTEMS), rng.choice(LAYOUTS)
        expected, seconds = soak.expected(system, layout)
        workdir = soak.new_folder()
        fit = soak.fit(system, layout, workdir)
        story, peak = interrupted(soak, fit, seconds, rng)
        assert soak.tables(workdir) == expected, f"{system} {layout}: {story}"
        kind = "fit"
        if rng.random() < 0.3:
            kind, outputs = "fit and score", [soak.new_folder(), soak.new_folder()]
            done = soak.finish(soak.score(system, workdir, outputs[0]))
            more, _ = interrupted(soak, soak.score(system, workdir, outputs[1]), done.seconds, rng)
            first, second = ((output / "scores.csv").read_text() for output in outputs)
            assert first == second, f"{system} {layout}: {more}"
            story = f"{story}; {more}"
        rounds += 1
        peaks[system].append(peak)
        flags = " ".join(flag.rpartition("=")[2] for flag in layout)
        print(f"{rounds}: {kind} {system} {flags}: {story}; {peak:.0f} MiB", flush=True)
    for system, values in sorted(peaks.items()):
        print(f"{system}: {len(values)} rounds, {min(values):.0f} to {max(values):.0f} MiB")
    assert rounds


@pytest.mark.long
def test_memory_stays_flat_over_many_updates(launch_environment, data_root, tmp_path):
    soak = Soak(launch_environment, data_root, tmp_path)
    epochs = max(40, round(40 * MINUTES))
    arguments = [
        *soak.fit("pchvae", LAYOUTS[1], tmp_path / "run"), "--mode=train",
        f"--config.train.num_epochs={epochs}",
    ]  # fmt: skip
    samples = []
    with (tmp_path / "log").open("w") as log:
        process = soak.start(arguments, log)
        while process.poll() is None:
            if (tmp_path / "run" / "metrics.jsonl").exists():
                samples.append(_resident(process.pid))
            time.sleep(0.5)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    samples = [value for value in samples if value]
    half = samples[len(samples) // 4 :]  # what is compiled and allocated once is there by then
    first, last = np.median(half[: len(half) // 4]), np.median(half[-(len(half) // 4) :])
    print(f"{5 * epochs} updates: {first:.0f} MiB, then {last:.0f} MiB")
    assert last < 1.05 * first + 20


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _write_images(path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    np.savez(path, image=rng.uniform(size=(600, size, size)).astype(np.float32))
