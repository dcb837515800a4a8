"""Training metrics as JSON lines and as TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from jaxad import processes
from jaxad.host_tensorflow import tensorflow
from jaxad.workdir import Workdir, atomic_write


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """The lines of a `metrics.jsonl`, oldest first; a torn last line is left out."""
    rows: list[dict[str, int | float]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a kill in the middle of a line; the steps after it are done again
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
        # Open for the life of the writer: closed in __exit__.
        self._lines = workdir.metrics.open("a", encoding="utf-8")  # noqa: SIM115
        self._events = tensorflow().summary.create_file_writer(str(workdir.path / "tensorboard"))

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_open:
            self._lines.close()
            self._events.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line and one event per metric; `step` counts updates done."""
        if not self._is_open:
            return
        self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self._lines.flush()
        summary = tensorflow().summary
        with self._events.as_default(step=step):
            for name, value in metrics.items():
                summary.scalar(name, value)
        self._events.flush()
