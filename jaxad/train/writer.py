"""Training metrics as JSON lines and TensorBoard events.

`jaxad.train.tracking` sends the JSON lines on to tracking services.
"""

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

#: Metrics of a system that is fitted in one pass: number of images, and duration.
FIT_IMAGES, FIT_SECONDS = "fit/images", "fit/seconds"


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """Reads the rows of a `metrics.jsonl`, oldest first; [] if there is no file.

    Damaged lines are skipped with a warning; an incomplete last line is skipped silently.
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
        logger.warning(f"warning: '{path}': damaged lines are skipped: {damaged}.")
    return rows


class MetricsWriter:
    """Appends metrics of increasing steps to `metrics.jsonl`; a context manager.

    A run that resumes at `start_step` repeats the later steps: their rows are dropped first, so
    that each step appears once. With `tensorboard` there are TensorBoard events, too. Only the
    first of several processes writes.
    """

    def __init__(self, workdir: Workdir, start_step: int, *, tensorboard: bool = True):
        self._is_open = processes.is_first()
        if not self._is_open:
            return
        rows = read_metrics(workdir.metrics)
        kept = [row for row in rows if row["step"] <= start_step]
        with atomic_write(workdir.metrics) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self._path = workdir.metrics
        self._lines = workdir.metrics.open("a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        self._events = _Events(workdir.path / "tensorboard") if tensorboard else None

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
            with naming(self._path), contextlib.closing(self._lines):
                if self._events is not None:
                    self._events.close()
        except (RunError, OSError):
            if kind is None:  # otherwise the error that ended the block is reported
                raise

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row after `step` updates.

        Raises:
            OSError, RunError: they cannot be written, because the disk is full for example.
        """
        if not self._is_open:
            return
        with naming(self._path):
            self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
            self._lines.flush()
        if self._events is not None:
            self._events.write(step, metrics)


class _Events:
    """TensorBoard events in a folder; errors of TensorFlow become a RunError of one line."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(exist_ok=True)  # TensorFlow's error would not name what is in the way
        with self._translated_errors():
            self._writer = tensorflow().summary.create_file_writer(str(folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes an event for each metric."""
        summary = tensorflow().summary
        with self._translated_errors(), self._writer.as_default(step=step):
            for name, value in metrics.items():
                summary.scalar(name, value)
            self._writer.flush()

    def close(self) -> None:
        with self._translated_errors():
            self._writer.close()

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raises errors of TensorFlow as a RunError."""
        try:
            yield
        except tensorflow().errors.OpError as error:
            reason = str(error.message).partition("; ")[2].splitlines() or ["it failed"]
            remedy = io_errors.remedy(io_errors.find_error_number(error))
            raise RunError(
                f"'{self._folder}' cannot be written ({reason[0]}); what was saved is intact. "
                f"{remedy}."
            ) from error
