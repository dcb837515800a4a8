"""When, how long and on what a run was trained and evaluated: `history.json` in its folder."""

import contextlib
import datetime
import json
import time
from collections.abc import Iterator
from typing import Any

import jax

from jaxad.runtime.environment import describe_devices, versions
from jaxad.storage.workdir import Workdir, write_json


def read(workdir: Workdir) -> dict[str, Any]:
    """Returns the record of a run.

    Returns:
        `training`, an entry for each time that the run began or resumed, oldest first, and
        `evaluation`, the entry of the last evaluation; {} if there is no readable record. An entry
        has `started` (UTC), `seconds`, `device`, `jaxad` and `jax` (versions), and `steps`, the
        updates of training, or `splits`, the names of the evaluated splits.
    """
    try:
        record = json.loads(workdir.history.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


class TrainingEntry:
    """The entry of one training; updated at every checkpoint, so that a kill loses little."""

    def __init__(self, workdir: Workdir, start: float, *, resumes: bool):
        """Adds an entry, or begins a new record unless the run `resumes`.

        `start` is the value of `time.monotonic` when training began.
        """
        self._workdir, self._start = workdir, start
        self._entry = _entry(start)
        self._before = list(read(workdir).get("training", [])) if resumes else []

    def update(self, steps: int) -> None:
        """Stores the time that the first `steps` updates of this entry took."""
        self._entry |= {"steps": steps, "seconds": _seconds_since(self._start)}
        write_json(
            self._workdir.history,
            {**read(self._workdir), "training": [*self._before, self._entry]},
        )


@contextlib.contextmanager
def evaluation(workdir: Workdir, splits: tuple[str, ...]) -> Iterator[None]:
    """Stores the entry of an evaluation of these splits, which the block does."""
    start = time.monotonic()
    entry = _entry(start)
    yield
    entry |= {"splits": list(splits), "seconds": _seconds_since(start)}
    write_json(workdir.history, {**read(workdir), "evaluation": entry})


def _entry(start: float) -> dict[str, Any]:
    elapsed = datetime.timedelta(seconds=time.monotonic() - start)
    began = datetime.datetime.now(datetime.UTC) - elapsed
    return {
        "started": began.strftime("%Y-%m-%d %H:%M UTC"),
        "device": describe_devices(jax.devices()),
        **versions(),
    }


def _seconds_since(start: float) -> float:
    return round(time.monotonic() - start, 1)
