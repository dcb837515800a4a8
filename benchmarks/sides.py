"""The processes of both sides of `versus_torch.py`, each of which imports only what it needs."""

import dataclasses
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_CONTEXT = multiprocessing.get_context("spawn")
_MEMORY_UPDATES = 10
#: Images of the check.
_CHECKED = 8


@dataclasses.dataclass(frozen=True)
class Case:
    """What both sides of a system compute.

    Attributes:
        config: the config of the run, as plain dicts.
        variables: jaxad's variables, as NumPy arrays.
        phases: name of a task -> the networks that its updates train; empty for a fit.
        shares: name of a task -> its share of a run's updates.
        fit_images: number of images of a fit.
    """

    config: dict[str, Any]
    variables: Any
    phases: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, float]
    fit_images: int

    @property
    def batch_size(self) -> int:
        """Images of an update."""
        return self.config["data"]["batch_size"]

    @property
    def score_batch_size(self) -> int:
        """Images that are scored at once: a run has `evaluate.batch_size` on each device."""
        return self.config["evaluate"]["batch_size"] * self.config["cpu_devices"]

    def train_images(self) -> np.ndarray:
        """Returns the images of an update, or all images of a fit."""
        return _images(self.config, self.batch_size if self.phases else self.fit_images)

    def score_images(self) -> np.ndarray:
        """Returns the images of a batch that is scored."""
        return _images(self.config, self.score_batch_size)

    def size(self, task: str) -> int:
        """Returns the images that one call of a task processes, 1 for those without images."""
        if task == "score":
            return self.score_batch_size
        if task.startswith("fit"):
            return self.fit_images
        return 1 if task == "matrix product" else self.batch_size


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of the comparison.

    Attributes:
        devices: jaxad's CPU devices; 0 for PyTorch.
        mode: torch.compile's mode; "" for eager.
        place: `cpu` or `cuda`.
        clock: one of `CLOCKS`.
    """

    devices: int
    mode: str
    place: str
    clock: str


class SideError(Exception):
    """The reason why a side could not do a task."""


def _images(config: dict[str, Any], count: int) -> np.ndarray:
    size, channels = config["data"]["image_size"], config["data"]["channels"]
    return np.random.default_rng(0).uniform(size=(count, size, size, channels)).astype(np.float32)


def _tasks(side: Side, case: Case) -> tuple[dict[str, Callable[[], Any]], Callable[[Any], Any]]:
    """Returns a side's measured functions, and a function that waits for their results."""
    train, score = case.train_images(), case.score_images()
    if side.devices:
        import jax
        import jaxad_tasks

        tasks = jaxad_tasks.tasks(case.config, side.devices, train, score)
        assert jax.default_backend() == {"cpu": "cpu", "cuda": "gpu"}[side.place]
        return tasks, jaxad_tasks.wait
    import torch
    from torch_systems import training

    def wait(result: Any) -> Any:
        if side.place == "cuda":
            torch.cuda.synchronize()
        return result

    tasks = training.tasks(
        case.config, case.variables, case.phases, train, score, side.place, side.mode
    )
    return tasks, wait


def serve(pipe: Connection, side: Side, case: Case) -> None:
    """Serves requests (name, count) with the seconds that they take, until it receives None.

    The request ("flops", 1) is answered with the operations of an update from features.
    """
    tasks, wait = _tasks(side, case)
    clock = CLOCKS[side.clock]
    pipe.send(list(tasks))
    while (request := pipe.recv()) is not None:
        name, count = request
        try:
            if name == "flops":
                pipe.send(tasks[name]())
                continue
            start = clock()
            wait([tasks[name]() for _ in range(count)])
            pipe.send(clock() - start)
        except Exception as error:  # a compiler may fail in many ways
            pipe.send(_reason(error))


def peak_memory(pipe: Connection, side: Side, case: Case, kind: str) -> None:
    """Sends the largest resident set, in MiB, of a process that runs one kind of task.

    The inputs of all tasks are in memory, and jaxad's state of training.
    """
    tasks, wait = _tasks(side, case)
    for name, task in tasks.items():
        if name.startswith(kind) and not name.endswith("from features"):
            for _ in range(1 if kind == "fit" else _MEMORY_UPDATES):
                wait(task())
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def first_update(pipe: Connection, side: Side, case: Case) -> None:
    """Sends the seconds from the end of the imports to the end of the first update."""
    images = case.train_images()
    if side.devices:
        import jaxad_tasks

        pipe.send(jaxad_tasks.first_update(case.config, side.devices, images))
        return
    from torch_systems import training

    pipe.send(
        training.first_update(
            case.config, case.variables, case.phases, images, side.place, side.mode
        )
    )


def make_case(pipe: Connection, name: str, changes: dict[str, Any], fit_images: int) -> None:
    """Checks that both sides agree; sends the case."""
    import agreement
    import jax
    import jaxad_tasks

    from jaxad.config import get_config
    from jaxad.config.model import make_model

    jax.config.update("jax_platforms", "cpu")  # accelerators round products differently
    config = get_config(name)
    config.update_from_flattened_dict(changes)
    phases = jaxad_tasks.update_phases(config, make_model(config))
    plain = config.to_dict()
    case = Case(
        config=plain,
        variables=agreement.check(plain, _images(plain, _CHECKED)),
        phases={task: networks for task, (networks, _) in phases.items()},
        shares={task: share for task, (_, share) in phases.items()},
        fit_images=fit_images,
    )
    pipe.send(case)


def _reason(error: Exception) -> SideError:
    # The quantity that differs is on a further line of NumPy's message.
    text = " ".join(str(error).split()[:40])
    return SideError(f"{type(error).__name__}: {text[:240]}")


def _run(pipe: Connection, function: Callable[..., None], environment: dict, *args: Any) -> None:
    os.environ.update(environment)
    try:
        function(pipe, *args)
    except Exception as error:  # PyTorch, its compiler and JAX may raise anything
        pipe.send(_reason(error))


class Process:
    """A function in a fresh process, and the pipe to it.

    Attributes:
        number: the number of the process.
    """

    def __init__(
        self, function: Callable[..., None], *args: Any, environment: dict[str, str] | None = None
    ):
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_run, args=(theirs, function, environment or {}, *args), daemon=True
        )
        self._process.start()
        self.number = self._process.pid
        theirs.close()

    def receive(self) -> Any:
        """Returns what the process sends; raises a SideError if it fails or ends."""
        try:
            answer = self._pipe.recv()
        except EOFError as error:
            raise SideError("its process ended, perhaps for lack of memory") from error
        if isinstance(answer, SideError):
            raise answer
        return answer

    def ask(self, name: str, count: int) -> float:
        """Returns the answer to a request of `serve`."""
        try:
            self._pipe.send((name, count))
        except OSError as error:
            raise SideError("its process has ended") from error
        return self.receive()

    def stop(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()


def answer(
    function: Callable[..., None], *args: Any, environment: dict[str, str] | None = None
) -> Any:
    """Returns what a function sends from a fresh process; raises a SideError if it fails."""
    process = Process(function, *args, environment=environment)
    try:
        return process.receive()
    finally:
        process.stop()
