"""Fifty kills with SIGKILL in runs of more than a minute and ten saves: no bit is lost.

    pytest -m long -n 0 -s tests/faults/test_kill.py

prints a line for every kill: the phase of the run and its step.
"""

import collections
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxad
from jaxad.train.writer import read_metrics

HERE = Path(__file__).parent
LAUNCH = HERE.parent.parent / "launch.py"

KILLS = int(os.environ.get("JAXAD_KILLS", "50"))
KILLS_OF_A_RUN = 5
#: Moments to kill at; a random time would seldom be inside a save. The last kill may be at the end.
MOMENTS = ("start-up", "update", "update", "save", "save")
LAST_MOMENTS = ("save", "end", "end")
LEAST_INSIDE_SAVES = KILLS // 10

#: Functions on the stacks of a process -> phase; the first function that is found decides.
PHASES = (
    ("write_report", "report"),
    ("evaluate_splits", "evaluation"),
    ("_validate", "validation"),
    ("_save", "save, before its files"),
    ("restore", "restoring"),
    ("train_batches", "reading data"),
    ("train_seeds", "training"),
    ("open_to_train", "opening data"),
)


@dataclasses.dataclass(frozen=True)
class System:
    """A config, its number of updates (80 images in batches of 16), and its checkpoint interval."""

    config: str
    steps: int
    every: int


CONFIGS = ("pchvae:smoke", "ganomaly:smoke")  # one network, and several in turn
NUM_SAVES = 12
LEAST_SECONDS, WANTED_SECONDS = 60, 90


def last_step(workdir: Path) -> int:
    """Returns the last logged step."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


class Run:
    """A folder and the command that trains, evaluates, and reports in it."""

    def __init__(self, system: System, workdir: Path, data_root: Path, environment: dict[str, str]):
        self.system, self.workdir = system, workdir
        self._stacks = workdir.with_suffix(".stacks")
        path = os.pathsep.join([str(HERE / "stacks"), environment.get("PYTHONPATH", "")])
        self._environment = environment | {"PYTHONPATH": path, "JAXAD_STACKS": str(self._stacks)}
        self._command = [
            sys.executable,
            str(LAUNCH),
            f"--config={system.config}",
            f"--workdir={workdir}",
            f"--config.data.root={data_root}",
            f"--config.train.num_epochs={system.steps * 16 / 80}",
            f"--config.train.checkpoint_every_steps={system.every}",
        ]

    def start(self) -> subprocess.Popen:
        self._stacks.unlink(missing_ok=True)
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> tuple[float, float]:
        """Runs to the end; returns the seconds before and after the first logged update."""
        process, began, before = self.start(), time.monotonic(), self.step()
        while self.step() == before and process.poll() is None:
            time.sleep(0.05)
        stepping = time.monotonic()
        _, errors = process.communicate(timeout=3600)
        assert process.returncode == 0, errors
        return stepping - began, time.monotonic() - stepping

    def step(self) -> int:
        return last_step(self.workdir)

    def saves_begun(self) -> set[tuple[str, int]]:
        """Returns the temporary folders of saves, by name and inode."""
        found = set()
        for path in (self.workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path.name, path.stat().st_ino))
        return found

    def phase(self, process: subprocess.Popen) -> str:
        """Returns the phase of the process from its stacks, which SIGUSR1 makes it write."""
        if not self._stacks.exists():
            return "start-up"
        process.send_signal(signal.SIGUSR1)
        stacks, before, deadline = "", None, time.monotonic() + 5
        while (not stacks or stacks != before) and time.monotonic() < deadline:
            before = stacks
            time.sleep(0.02)
            stacks = self._stacks.read_text()
        return next((name for function, name in PHASES if f"in {function}\n" in stacks), "start-up")


def parameters(run: Run) -> list[np.ndarray]:
    found = jaxad.load(run.workdir)
    assert found.step == run.system.steps
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found.variables)]


def check_same(killed: Run, whole: Run) -> None:
    """Checks that parameters, validations, and scores are equal and no temporary file is left."""
    for ours, theirs in zip(parameters(killed), parameters(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lines = [
        [row for row in read_metrics(run.workdir / "metrics.jsonl") if "validation_loss" in row]
        for run in (killed, whole)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) >= 10
    for path in (whole.workdir / "eval").glob("*/*.*"):
        if path.suffix in (".csv", ".json"):
            other = killed.workdir / path.relative_to(whole.workdir)
            assert other.read_bytes() == path.read_bytes()
    assert not killed.saves_begun()
    assert not list(killed.workdir.rglob(".*.tmp"))


def wait(moment: str, run: Run, alive: Callable[[], bool], startup: float, draw: random.Random):
    """Returns at a random moment of a kind, or when the process has ended."""
    first, before = run.step(), run.saves_begun()

    def until(reached: Callable[[], bool], seconds: float) -> None:
        while alive() and not reached():
            time.sleep(0.0005)
        ends = time.monotonic() + draw.uniform(0, seconds)
        while alive() and time.monotonic() < ends:
            time.sleep(0.0005)

    def save_begins() -> bool:
        nonlocal before
        begun, earlier = run.saves_begun(), before
        before = begun  # what an earlier kill left goes meanwhile
        return bool(begun - earlier)

    system = run.system
    if moment == "start-up":
        until(lambda: True, startup)
    elif moment == "update":
        target = first + draw.uniform(0, system.steps / KILLS_OF_A_RUN)
        until(lambda: first < run.step() >= target, 0.3)
    elif moment == "save":
        until(save_begins, 0.1)
    else:
        until(lambda: run.step() == system.steps, 15)


def kill_once(run: Run, moment: str, startup: float, draw: random.Random) -> str | None:
    """Starts the run and kills it at a moment; returns its phase, or None if it had ended."""
    earlier = run.saves_begun()
    process = run.start()
    wait(moment, run, lambda: process.poll() is None, startup, draw)
    if process.poll() is None:
        phase = run.phase(process)
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    if process.returncode != -signal.SIGKILL:
        assert process.returncode == 0, errors
        return None
    return "inside a save" if run.saves_begun() - earlier else phase


@pytest.mark.long
def test_fifty_kills(launch_environment, data_root, tmp_path):
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", flush=True)

    def run_of(system: System, name: str) -> Run:
        name = f"{name}-{system.config.partition(':')[0]}"
        return Run(system, tmp_path / name, data_root, launch_environment)

    draw = random.Random(0)
    wholes, startups = {}, {}
    print()
    for config in CONFIGS:
        run_of(System(config, 100, 50), "compiles").finish()
        steps, seconds = 1000, 0.0
        while seconds < LEAST_SECONDS:
            if seconds:
                steps = int(steps * 1.2 * WANTED_SECONDS / seconds)
            every = steps // NUM_SAVES
            system = System(config, every * NUM_SAVES, every)
            whole = run_of(system, f"whole-{steps}")
            startup, seconds = whole.finish()
        say(f"{config} uninterrupted: {startup:.0f} s to the first update that is logged, then "
            f"{seconds:.0f} s for {system.steps} updates and {NUM_SAVES} saves")  # fmt: skip
        wholes[system], startups[system] = whole, startup

    systems = list(wholes)
    where, number, runs = collections.Counter(), 0, 0
    while number < KILLS:
        system = systems[runs % len(systems)]
        runs += 1
        run = run_of(system, f"run-{runs}")
        for place in range(KILLS_OF_A_RUN):
            is_last = place == KILLS_OF_A_RUN - 1
            moment = draw.choice(LAST_MOMENTS if is_last else MOMENTS)
            phase = kill_once(run, moment, startups[system], draw)
            if phase is None:
                say(f"run {runs} ({system.config}) came to its end before the next kill")
                break
            number += 1
            where[phase] += 1
            say(f"kill {number}: run {runs} ({system.config}): {phase} (it was to be: {moment}), "
                f"last logged step {run.step()} of {system.steps}")  # fmt: skip
        run.finish()
        check_same(run, wholes[system])
        say(f"run {runs} ({system.config}) finished: the same to the last bit")
    say(f"{number} kills in {runs} runs, none lost: {dict(where.most_common())}")
    assert where["inside a save"] >= LEAST_INSIDE_SAVES


@pytest.mark.long
def test_a_study_is_killed_and_finished(launch_environment, data_root, tmp_path):
    """Two seeds as one program, then one alone: killed in training and between evaluations."""
    command = [
        sys.executable,
        str(LAUNCH),
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
        "in training": lambda: last_step(runs / "seed_1") > 20,
        "between the evaluations of a group": lambda: (runs / "seed_0/report.html").exists(),
        "in the last seed's training": lambda: last_step(runs / "seed_2") > 20,
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
