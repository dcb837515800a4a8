"""Runs of many updates on several CPU devices do not hang.

    JAXAD_REPEATS=10 pytest -m long -n 0 -s tests/faults/test_hangs.py

Without a limit on queued programs (`jaxad.runtime.parallel.InFlight`), XLA's pool of threads
fills up with programs that wait for a partner in an all-reduce, and after 40 s XLA aborts the
process. On two cores, jax 0.10.2, that happened in 4 of 5 trainings of the demo and in 3 of 4 of
its profiles.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
REPEATS = int(os.environ.get("JAXAD_REPEATS", "1"))
#: Nothing but a hang takes so long; XLA aborts after 40 s.
SECONDS = 300

#: Metrics are read once in 1,000 updates, so that nothing else waits for the devices. Of small
#: networks there are 400 updates, of the demo's 225.
LOG = ["--config.train.log_every_steps=1000", "--config.train.checkpoint_every_steps=1000"]
TRAIN = ["--mode=train", "--config=pchvae:smoke", "--config.train.num_epochs=80", *LOG]
PROFILE = ["--mode=profile", "--config=pchvae:smoke", "--steps=400"]
DEVICES = "--config.cpu_devices={}"

COMMANDS = {
    "train, demo": ["--mode=train", "--config=pchvae:demo", "--config.train.num_epochs=3", *LOG,
                    DEVICES.format(2)],
    "train": [*TRAIN, DEVICES.format(2)],
    "train, 4 devices": [*TRAIN, DEVICES.format(4)],
    "train, 8 devices": [*TRAIN, DEVICES.format(8)],
    "train, pmap": [*TRAIN, DEVICES.format(2), "--config.parallel=pmap"],
    "train, pmap, 8 devices": [*TRAIN, DEVICES.format(8), "--config.parallel=pmap"],
    "train, 4 updates a dispatch": [
        *TRAIN, DEVICES.format(2), "--config.train.steps_per_dispatch=4",
    ],
    "profile, demo": [
        "--mode=profile", "--config=pchvae:demo", "--steps=200", DEVICES.format(2),
    ],
    "profile": [*PROFILE, DEVICES.format(2)],
    "profile, 4 devices": [*PROFILE, DEVICES.format(4)],
}  # fmt: skip


@contextlib.contextmanager
def load(cores: int) -> Iterator[None]:
    """Keeps a number of cores busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(command: list[str], environment: dict[str, str], *, cores: str = "") -> None:
    """Runs a command to its end, on the given cores."""
    taskset = ["taskset", "-c", cores] if cores else []
    result = subprocess.run(
        [*taskset, sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no result from the devices" not in result.stderr, result.stderr


@pytest.mark.long
@pytest.mark.parametrize("number", range(REPEATS))
@pytest.mark.parametrize("where", ["", "one core", "under load"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_run_hangs(name, where, number, launch_environment, data, tmp_path):
    if where and name not in ("train", "train, pmap", "profile"):
        pytest.skip("one core and load are tried with two devices")
    command = [
        str(ROOT / "launch.py"), f"--workdir={tmp_path}", f"--config.data.root={data}",
        *COMMANDS[name],
    ]  # fmt: skip
    start = time.monotonic()
    with load(2) if where == "under load" else contextlib.nullcontext():
        run(command, launch_environment, cores="0" if where == "one core" else "")
    print(f"{name} {where} {number}: {time.monotonic() - start:.0f} s", flush=True)


@pytest.mark.long
@pytest.mark.parametrize("number", range(REPEATS))
def test_the_benchmark_does_not_hang(number, launch_environment):
    command = [
        str(ROOT / "benchmarks" / "accelerator.py"), "throughput", "pchvae", "--settings=float32",
        "--repeats=3",
    ]  # fmt: skip
    run(command, launch_environment | {"JAX_NUM_CPU_DEVICES": "2"})


@pytest.fixture(scope="module")
def data(tmp_path_factory, launch_environment) -> Path:
    """The data of both variants, generated once."""
    root = tmp_path_factory.mktemp("data")
    for variant in ("demo", "smoke"):
        look = tmp_path_factory.mktemp("look")
        run(
            [str(ROOT / "launch.py"), "--mode=inspect", f"--config=pchvae:{variant}",
             f"--workdir={look}", f"--config.data.root={root}"],
            launch_environment,
        )  # fmt: skip
    return root
