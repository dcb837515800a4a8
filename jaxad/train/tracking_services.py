"""The tracking services that `config.train.writers` may name, behind one interface.

Their packages are imported only in the process of `jaxad.train.tracking_process`.
"""

import contextlib
import dataclasses
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxad.storage.home import temporary_folder

#: How a run ended, by name; the values are W&B's exit codes.
EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}

Row = tuple[int, Mapping[str, int | float]]


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a service calls a run.

    Attributes:
        id: 16 random hexadecimal digits, kept in the run's folder.
        name: name for people: the folder's, or `<study>/<experiment>/seed_<n>`.
        group: `<study>/<experiment>` of a study's run; otherwise "".
        folder: the run's folder.
    """

    id: str
    name: str
    group: str
    folder: Path


class Tracked(Protocol):
    """A run at a tracking service, new or continued.

    Attributes:
        last_step: the last step that the service has; -1 for a new run.
        place: where to find the run, for people.
    """

    last_step: int
    place: str

    def describe(self, parameters: Mapping[str, Any]) -> None:
        """Sets the run's parameters; they may have been set before."""

    def log(self, rows: Sequence[Row]) -> None:
        """Sends rows of increasing steps, all above `last_step`."""

    def summarise(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Sends the evaluation of the checkpoint of `step`; it may have been sent before."""

    def close(self, status: str) -> None:
        """Waits until everything is sent, and marks the run as one of `EXIT_CODES`."""


class _WeightsAndBiases:
    """A run of W&B. The package's own variables (`WANDB_...`) win over what jaxad sets.

    W&B drops steps below the last one. An offline run cannot be continued: it begins again with all
    rows, under the same id, so that the newest folder alone is the whole run.
    """

    def __init__(self, identity: Identity):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        # No output, command line, or git remote leaves the machine. A version without one of these
        # settings raises an error: nothing is sent.
        settings = wandb.Settings(
            console="off", disable_git=True, x_disable_meta=True, x_stats_pid=os.getppid()
        )
        self._run = wandb.init(
            id=identity.id,
            name=os.environ.get("WANDB_NAME", identity.name),
            group=os.environ.get("WANDB_RUN_GROUP", identity.group) or None,
            project=wandb.setup().settings.project or "jaxad",
            dir=os.environ.get("WANDB_DIR", str(identity.folder)),
            resume="allow",
            settings=settings,
        )
        self.last_step = int(self._run.step) - 1
        self.place = str(self._run.url or f"offline; to send it: wandb sync '{self._folder()}'")

    def _folder(self) -> Path:
        return Path(self._run.dir).absolute().parent

    def describe(self, parameters: Mapping[str, Any]) -> None:
        self._run.config.update(dict(parameters), allow_val_change=True)

    def log(self, rows: Sequence[Row]) -> None:
        for step, metrics in rows:
            self._run.log(dict(metrics), step=step)
            self.last_step = step

    def summarise(self, step: int, metrics: Mapping[str, int | float]) -> None:
        self._run.summary.update({**metrics, "evaluation/checkpoint_step": step})

    def close(self, status: str) -> None:
        self._run.finish(exit_code=EXIT_CODES[status])


class _MLflow:
    """A run of MLflow, found by a tag with jaxad's id; another tag holds the last step sent.

    MLflow would keep a value for each time that a step is sent. A parameter can never change: a
    changed one becomes a tag.
    """

    _ID, _STEP = "jaxad.id", "jaxad.step"
    #: MLflow's limits of one request.
    _MOST_METRICS, _MOST_OTHERS, _MOST_CHARACTERS = 1000, 100, 6000

    def __init__(self, identity: Identity):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        with _one_at_a_time():  # processes that create the same database at once fail
            self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "jaxad")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment(name)
        runs = self._client.search_runs([experiment], f"tags.`{self._ID}` = '{identity.id}'")
        if runs:
            self._id = runs[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
        else:
            run = self._client.create_run(
                experiment, run_name=identity.name, tags={self._ID: identity.id}
            )
            self._id = run.info.run_id
        self._data = self._client.get_run(self._id).data
        self.last_step = int(self._data.tags.get(self._STEP, -1))
        self.place = f"run {self._id} of experiment '{name}'"

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if experiment := self._client.get_experiment_by_name(name):
            return experiment.experiment_id
        try:
            return self._client.create_experiment(name)
        except MlflowException:
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return experiment.experiment_id  # another process has just created it

    def describe(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        texts = {key: str(value)[: self._MOST_CHARACTERS] for key, value in parameters.items()}
        known = self._data.params
        params = [Param(key, text) for key, text in texts.items() if key not in known]
        tags = [RunTag(key, text) for key, text in texts.items() if known.get(key, text) != text]
        for part in _parts(params, self._MOST_OTHERS):
            self._client.log_batch(self._id, params=part)
        for part in _parts(tags, self._MOST_OTHERS):
            self._client.log_batch(self._id, tags=part)
        known.update({param.key: param.value for param in params})

    def log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import RunTag

        for part in _parts(rows, self._MOST_METRICS // max(len(metrics) for _, metrics in rows)):
            step = part[-1][0]
            metrics = [metric for row in part for metric in self._metrics(*row)]
            tags = [RunTag(self._STEP, str(step))]
            self._client.log_batch(self._id, metrics=metrics, tags=tags)
            self.last_step = step

    def summarise(self, step: int, metrics: Mapping[str, int | float]) -> None:
        known = self._data.metrics
        values = {key: value for key, value in metrics.items() if known.get(key) != value}
        for part in _parts(self._metrics(step, values), self._MOST_METRICS):
            self._client.log_batch(self._id, metrics=part)

    def _metrics(self, step: int, metrics: Mapping[str, int | float]) -> list[Any]:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        return [
            Metric(re.sub(r"[^\w\-./: ]", "_", key), float(value), now, step)
            for key, value in metrics.items()
        ]

    def close(self, status: str) -> None:
        self._client.set_terminated(self._id, status)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lets one process of this user on this machine into the block."""
    folder = temporary_folder()
    if folder is None:
        yield
        return
    with (folder / "mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + max(1, size)] for start in range(0, len(items), max(1, size)))


@dataclasses.dataclass(frozen=True)
class Service:
    """A tracking service.

    Attributes:
        name: its name in `config.train.writers`, its extra of jaxad and its package's import name.
        title: its name for people.
        open: opens a run, or continues it; only in a process of its own.
    """

    name: str
    title: str
    open: Callable[[Identity], Tracked]


SERVICES: Mapping[str, Service] = {
    service.name: service
    for service in (
        Service("wandb", "Weights & Biases", _WeightsAndBiases),
        Service("mlflow", "MLflow", _MLflow),
    )
}
