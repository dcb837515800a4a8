"""The process that sends one run to one tracking service.

`jaxad.train.tracking` starts one process for each run and service. It copies the run's folder:
the rows of `metrics.jsonl` while they are written, then the metrics of the evaluation. It never
sends a step twice, and sends what an earlier process could not. Whatever the service's package does
(hang, fail, handle signals, hook the interpreter's exit) stays in this process.
"""

import contextlib
import fcntl
import json
import math
import os
import re
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from jaxad.config import flatten, run_config, without_paths
from jaxad.errors import first_line
from jaxad.storage.workdir import Workdir
from jaxad.train.tracking_services import EXIT_CODES, SERVICES, Identity, Row, Service

#: Seconds after the end of a run within which its last rows must be sent.
FINISH_SECONDS = 60.0
#: Seconds after which this process ends by itself, if that of the run has not ended it.
_LIMIT_SECONDS = FINISH_SECONDS + 5
#: Seconds between two looks at the run's folder.
_PERIOD = 1.0
#: First word of a line that is a warning.
WARNING = "warning: "


def run_name(folder: Path) -> tuple[str, str]:
    """Returns the name of a run and its group; see `Identity`."""
    folder = folder.resolve()
    *_, study, runs, experiment, seed = ("", "", "", *folder.parts)
    if runs == "runs" and Workdir(folder.parents[2]).study.exists():
        return f"{study}/{experiment}/{seed}", f"{study}/{experiment}"
    return folder.name, ""


class Rows:
    """Reads the rows of a growing `metrics.jsonl`, merged by step."""

    def __init__(self, path: Path):
        self._path = path
        self._file = (0, 0)
        self._offset = 0
        self._last: tuple[int, dict[str, int | float]] | None = None

    def read(self, *, is_end: bool) -> list[Row]:
        """Returns the steps that are complete since the last call.

        A step is complete once another one follows, or at the end: its validation may still come. A
        file that was replaced is read from its start.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != self._file:
                    self._file = status.st_dev, status.st_ino
                    self._offset, self._last = 0, None
                file.seek(self._offset)
                lines = file.read()
        except FileNotFoundError:
            return []
        lines = lines[: lines.rfind(b"\n") + 1]
        self._offset += len(lines)
        rows: list[Row] = []
        for line in lines.splitlines():
            with contextlib.suppress(ValueError):  # a damaged line, which `read_metrics` reports
                row = json.loads(line)
                self._add(int(row.pop("step")), row, rows)
        if is_end and self._last is not None:
            rows.append(self._last)
            self._last = None
        return rows

    def _add(self, step: int, metrics: dict[str, int | float], complete: list[Row]) -> None:
        if self._last is not None and self._last[0] == step:
            self._last[1].update(metrics)
            return
        if self._last is not None:
            complete.append(self._last)
        self._last = step, metrics


def evaluation_metrics(workdir: Workdir) -> tuple[int, dict[str, int | float]]:
    """Returns the step of the evaluated checkpoint, and every number of the system's evaluation.

    Results on other sites' data are not sent: their names may disclose the site, and they may be of
    an earlier checkpoint. Names are `<split>/auroc` for a metric and `<split>/auroc/low` for a
    limit of its interval. There are none for a run without an evaluation.
    """
    step, numbers = 0, {}
    for path in sorted(workdir.path.glob("eval/*/metrics.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if "external" in results:
            continue
        step = int(results["checkpoint_step"])
        results.pop("trivial", None)  # reference scores: many numbers, the same for every system
        numbers.update(_numbers(path.parent.name, results))
    return step, numbers


def _numbers(prefix: str, value: Any) -> dict[str, int | float]:
    if isinstance(value, Mapping):
        found: dict[str, int | float] = {}
        for key, item in value.items():
            found.update(_numbers(prefix if key == "value" else f"{prefix}/{key}", item))
        return found
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {prefix: float(value)} if is_number and math.isfinite(value) else {}


class Ending:
    """Learns from the standard input how the run ended: a word of `EXIT_CODES`.

    The input ends without one if the process of the run was killed.
    """

    def __init__(self) -> None:
        self.status = ""
        self._has_ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        text = sys.stdin.readline().strip()
        self.status = text if text in EXIT_CODES else ""
        # Also if the package hangs in a call.
        timer = threading.Timer(_LIMIT_SECONDS, os._exit, (1,))
        timer.daemon = True
        timer.start()
        self._has_ended.set()

    def wait(self, seconds: float) -> bool:
        """Waits for the end of the run; returns whether it has come."""
        return self._has_ended.wait(seconds)


def follow(service: Service, workdir: Workdir, ending: Ending, tell: Callable[[str], None]) -> None:
    """Copies a run to a service until the run ends.

    Args:
        service: the service.
        workdir: the run's folder; the run exists at the service once its config is stored.
        ending: tells when the run ends.
        tell: receives lines for the user.
    """
    rows, run = Rows(workdir.metrics), None
    with _identity(service, workdir) as identity:
        while True:
            is_end = ending.wait(_PERIOD)
            if run is None and workdir.config.exists():
                run = service.open(identity)
                run.describe(_parameters(workdir))
                tell(f"{service.title}: {run.place}")
            if run is not None:
                # After a kill the last step is done again, with its validation.
                new = rows.read(is_end=bool(ending.status))
                if new := [row for row in new if row[0] > run.last_step]:
                    run.log(new)
            if is_end:
                break
        if run is not None:
            run.describe(_parameters(workdir))  # a longer run stores its length
            step, metrics = evaluation_metrics(workdir)
            if metrics:
                run.summarise(step, metrics)
            run.close(ending.status or "KILLED")


def _parameters(workdir: Workdir) -> dict[str, Any]:
    return flatten(without_paths(run_config.read(workdir)))


@contextlib.contextmanager
def _identity(service: Service, workdir: Workdir) -> Iterator[Identity]:
    """Yields the identity of a run, which is locked: an earlier process may still be sending."""
    path = workdir.path / "tracking" / f"{service.name}.id"
    with path.open("a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if not re.fullmatch("[0-9a-f]{16}", text):
            text = uuid.uuid4().hex[:16]
            file.truncate(0)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield Identity(text, *run_name(workdir.path), workdir.path)


def main(name: str, folder: str) -> NoReturn:
    """Runs `follow` for the service `name`; what the package prints goes to the standard error."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the run is what counts
    output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)

    def tell(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the process of the run has ended
            output.write(f"{line}\n")
            output.flush()

    try:
        follow(SERVICES[name], Workdir(folder), Ending(), tell)
    except Exception as error:  # a package of others may raise anything
        tell(f"{WARNING}{first_line(error)}")
        raise
    sys.exit(0)
