"""Small runs in forked processes, into which faults are injected."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Child:
    """A command in a child process; its output goes to a file."""

    process: int
    output: Path

    @property
    def changes(self) -> list[str]:
        """The file changes that were recorded; the last one of a killed process was not made."""
        return self.output.with_suffix(".changes").read_text().splitlines()


@dataclasses.dataclass(frozen=True)
class Ended:
    """The exit code of a command, negative for a signal, and its output."""

    code: int
    printed: str

    def only_line(self, code: int) -> str:
        """Checks that the command failed with this code and returns its only error line."""
        lines = [line for line in self.printed.splitlines() if line.startswith(("error", "failed"))]
        assert self.code == code and len(lines) == 1, self.printed
        assert "Traceback" not in self.printed, self.printed
        return lines[0]


class Forker:
    """Starts command lines; see `forker.py`."""

    def __init__(self, environment: dict[str, str], folder: Path):
        self._folder, self._count = folder, 0
        self._errors = (folder / "errors").open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "forker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), (folder / "errors").read_text()

    def close(self) -> None:
        self._process.communicate()
        self._errors.close()

    def _ask(self, task: dict[str, Any]) -> dict[str, int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        *arguments: object,
        largest_file: int = 0,
        setup: str = "",
        kill_at: int = 0,
        below: Path | None = None,
        **environment: str,
    ) -> Child:
        """Starts a command line.

        Args:
            *arguments: of the command line.
            largest_file: bytes; the system refuses to let a file grow larger. 0: any size.
            setup: Python that runs in the process first.
            kill_at: ends it without notice before its n-th change of a file. 0: not.
            below: counts changes of files below this folder.
            **environment: variables.
        """
        self._count += 1
        output = self._folder / f"{self._count}.out"
        found = self._ask(
            {
                "arguments": [str(one) for one in arguments],
                "output": str(output),
                "largest_file": largest_file,
                "setup": setup,
                "kill_at": kill_at,
                "below": "" if below is None else str(below),
                "environment": environment,
            }
        )
        return Child(found["process"], output)

    def finish(self, child: Child) -> Ended:
        """Waits until a command has ended."""
        code = self._ask({"wait": child.process})["code"]
        return Ended(code, child.output.read_text())

    def run(self, *arguments: object, **options: Any) -> Ended:
        """Runs a command line to its end."""
        return self.finish(self.start(*arguments, **options))


@pytest.fixture(scope="session")
def forker(launch_environment, tmp_path_factory) -> Iterator[Forker]:
    found = Forker(launch_environment, tmp_path_factory.mktemp("forker"))
    yield found
    found.close()


_CONFIG = """
from jaxad import config as config_lib

def get_config(variant=""):
    one = config_lib.get_config("lowvae:smoke").unlock()
    one.data.name, one.data.root, one.data.image_size = "npz", {root!r}, 16
    one.data.batch_size, one.cpu_devices = 8, 1
    one.model.widths, one.model.depths = (4, 4), (0, 0)
    one.train.num_epochs, one.train.checkpoint_every_steps = 4.0, 3
    one.evaluate.bootstrap_resamples = 5
    one.evaluate.num_examples = 1
    return one.lock()
"""

_STUDY = """
from jaxad import config as config_lib

def get_config(variant=""):
    found = config_lib.study({{"tiny": config_lib.get_config({tiny!r})}}, seeds=(0, 1)).unlock()
    found.num_slices, found.bootstrap_resamples = 1, 5
    return found.lock()
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with config files `tiny.py` and `study.py`, and their data."""
    folder = tmp_path_factory.mktemp("tiny")
    generator = np.random.default_rng(0)
    for name in ("train", "val", "test_squares"):
        images = generator.uniform(0.3, 0.5, (24, 16, 16)).astype(np.float32)
        labels = np.zeros(24, int)
        if name == "test_squares":
            labels[::2] = 1
            images[::2, 4:9, 4:9] = 1
        groups = [f"{name}-{row // 4}" for row in range(24)]
        np.savez(folder / f"{name}.npz", image=images, group=groups, label=labels)
    (folder / "tiny.py").write_text(_CONFIG.format(root=str(folder)))
    (folder / "study.py").write_text(_STUDY.format(tiny=str(folder / "tiny.py")))
    return folder


@pytest.fixture(scope="session")
def trained(forker, tiny, tmp_path_factory) -> Path:
    """The workdir of a trained run of `tiny.py`, not evaluated."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    ended = forker.run(f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train")
    assert ended.code == 0, ended.printed
    return workdir
