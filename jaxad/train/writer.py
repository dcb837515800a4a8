"""Training metrics as JSON lines and as TensorBoard events."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from jaxad.errors import RunError
from jaxad.runtime import processes
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.storage import io_errors
from jaxad.storage.workdir import Workdir, atomic_write, naming

logger = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """The lines of a `metrics.jsonl`, oldest first; a torn last line is left out.

    Damaged ones before it are left out too, which a line on stderr says.
    """
    rows: list[dict[str, int | float]] = []
    if not path.exists():
        return rows
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    damaged = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            damaged.append(number)
    if damaged and damaged[-1] == len(lines):
        damaged.pop()  # a kill in the middle of a line; the steps after it are done again
    if damaged:
        logger.warning(f"warning: '{path}': damaged lines are left out: {damaged}.")
    return rows


class MetricsWriter:
    """Appends metrics of increasing steps. A context manager.

    A run that resumes at `start_step` does the later steps again: their lines are dropped first,
    so that each step appears once. Of several processes the first one writes.
    """

    def __init__(self, workdir: Workdir, start_step: int):
        self._is_open = processes.is_first()
        if not self._is_open:
            return
        rows = read_metrics(workdir.metrics)
        kept = [row for row in rows if row["step"] <= start_step]
        with atomic_write(workdir.metrics) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self._path = workdir.metrics
        # Open for the life of the writer: closed in __exit__.
        self._lines = workdir.metrics.open("a", encoding="utf-8")  # noqa: SIM115
        self._folder = workdir.path / "tensorboard"
        self._folder.mkdir(exist_ok=True)  # TensorFlow would not say what is in the way
        with self._told():
            self._events = tensorflow().summary.create_file_writer(str(self._folder))

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_open:
            return
        try:
            with naming(self._path), contextlib.closing(self._lines), self._told():
                self._events.close()
        except (RunError, OSError):
            if kind is None:  # else what ended the block is told
                raise

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line and one event per metric; `step` counts updates done.

        Raises:
            OSError, RunError: there is no room for them.
        """
        if not self._is_open:
            return
        with naming(self._path):
            self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
            self._lines.flush()
        summary = tensorflow().summary
        with self._told(), self._events.as_default(step=step):
            for name, value in metrics.items():
                summary.scalar(name, value)
            self._events.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except tensorflow().errors.OpError as error:
            reason = str(error.message).partition("; ")[2].splitlines() or ["it failed"]
            remedy = io_errors.remedy(io_errors.find_error_number(error))
            raise RunError(
                f"'{self._folder}' cannot be written ({reason[0]}); what was saved is whole. "
                f"{remedy}."
            ) from error
