"""The training loop: from a config and a folder to checkpoints and metrics."""

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxad import experiment
from jaxad.checkpoint import VALIDATION_LOSS, Checkpoints
from jaxad.data import pipeline
from jaxad.data.sources import DataSet
from jaxad.errors import RunError
from jaxad.parallel import Parallel, make_parallel
from jaxad.train.optim import learning_rate_schedule, make_optimiser
from jaxad.train.state import TrainState, create_state, initial_variables
from jaxad.train.step import train_step, validation_sums
from jaxad.train.writer import MetricsWriter
from jaxad.types import Split, Tree
from jaxad.workdir import Workdir


def num_train_steps(config: ConfigDict, num_examples: int) -> int:
    """Updates in a run: `config.train.num_epochs` passes over the examples, at least one update."""
    per_epoch = pipeline.steps_per_epoch(num_examples, config.data.batch_size)
    return max(1, round(config.train.num_epochs * per_epoch))


@contextlib.contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM came; the loop stops at its next step."""
    requested = threading.Event()

    def request(signum: int, frame: FrameType | None) -> None:
        requested.set()

    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set  # Python delivers signals to the main thread alone.
        return
    previous = signal.signal(signal.SIGTERM, request)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Window:
    """Metrics of the steps since the last log, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Tree]] = []
        self._start = time.monotonic()

    def add(self, step: int, metrics: Tree) -> None:
        self._pending.append((step, metrics))

    def read(self, parallel: Parallel, last_good: int | None) -> dict[str, float]:
        """Means over the window, and steps per second; empties it.

        Raises:
            RunError: a value is not finite; names the first such step and term.
        """
        rows = [(step, parallel.get_replicated(metrics)) for step, metrics in self._pending]
        for step, row in rows:
            _check_finite(step, row, last_good)
        seconds = time.monotonic() - self._start
        means = {
            f"train/{name}": float(np.mean([row[name] for _, row in rows])) for name in rows[0][1]
        }
        means["train/steps_per_second"] = len(rows) / seconds
        self._pending = []
        self._start = time.monotonic()
        return means

    def restart_clock(self) -> None:
        """Leaves out what is not training (validation, a save) from the speed."""
        self._start = time.monotonic()

    def __bool__(self) -> bool:
        return bool(self._pending)


def _check_finite(step: int, metrics: Mapping[str, Any], last_good: int | None) -> None:
    """Raises a RunError that names the step, the first term that is not finite and the way back."""
    # Terms before the loss that sums them: the term is the one to name.
    for name in sorted(metrics, key=lambda name: "term/" not in name):
        if not np.isfinite(metrics[name]):
            good = (
                f"the last good checkpoint is step {last_good}"
                if last_good is not None
                else "there is no checkpoint yet"
            )
            raise RunError(
                f"step {step}: {name} is {float(metrics[name])}, the run stops; {good}. "
                "Try a smaller config.optim.learning_rate or a config.optim.clip_norm."
            )


def _validate(
    compiled: Callable[[Tree, Tree], tuple[Tree, Tree]],
    parallel: Parallel,
    variables: Tree,
    split: Split,
    batch_size: int,
) -> dict[str, float]:
    """Mean losses and terms over a split, every example counted once."""
    batches = pipeline.eval_batches(
        split.images,
        {"label": split.labels},
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    rows = [
        parallel.get_replicated(compiled(variables, batch)) for batch in parallel.prefetch(batches)
    ]
    count = sum(float(number) for _, number in rows)
    names = rows[0][0]
    return {
        f"validation/{name}": sum(float(sums[name]) for sums, _ in rows) / count for name in names
    }


def train(config: ConfigDict, workdir: Workdir, data_set: DataSet) -> bool:
    """Trains until the config's last step, from the last checkpoint in the folder if there is one.

    Args:
        config: the run; its folder holds no other run.
        workdir: where checkpoints and metrics go.
        data_set: has splits `train` and `val`.

    Returns:
        True when the run is complete, False when SIGTERM ended it early (a checkpoint is saved).

    Raises:
        UserError: the config asks for something that cannot be.
        RunError: a loss is no longer finite.
    """
    parallel = make_parallel(config.parallel)
    model = experiment.make_model(config, parallel.axis_name)
    train_split, validation_split = data_set.split("train"), data_set.split("val")
    num_steps = num_train_steps(config, len(train_split))
    settings = experiment.optim_settings(config)
    variables = initial_variables(model, config.seed)
    optimiser = make_optimiser(settings, variables["params"], num_steps)
    schedule = learning_rate_schedule(settings, num_steps)
    state = create_state(variables, optimiser, config.seed)

    compiled_step = parallel.compile_reduce(
        functools.partial(
            train_step, model=model, optimiser=optimiser, axis_name=parallel.axis_name
        ),
        donate_state=True,
    )
    compiled_validation = parallel.compile_reduce(
        functools.partial(
            validation_sums, model=model, seed=config.seed, axis_name=parallel.axis_name
        )
    )

    with (
        Checkpoints(workdir.checkpoints, keep_last=config.train.keep_last) as checkpoints,
        _stop_request() as stop_requested,
    ):
        if checkpoints.last_step is not None:
            state = _restore(checkpoints, checkpoints.last_step, state)
        start_step = int(state.step)
        if start_step >= num_steps:
            return True
        state = parallel.put_replicated(state)
        batches = pipeline.train_batches(
            train_split,
            batch_size=config.data.batch_size,
            seed=config.seed,
            augmentation=experiment.augmentation(config),
            start_step=start_step,
            stop_step=num_steps,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # Nothing of the config can be wrong any more: the folder becomes this run's.
        workdir.claim(config)
        window = _Window()
        last_good = checkpoints.last_step
        with (
            MetricsWriter(workdir, start_step) as writer,
            _progress_bar(config, start_step, num_steps) as bar,
        ):
            step, stopping = start_step, False
            for batch in parallel.prefetch(batches):
                with jax.transfer_guard("disallow"):
                    state, metrics = compiled_step(state, batch)
                step += 1
                window.add(step, metrics)
                stopping = stop_requested()
                saving = stopping or step == num_steps
                saving = saving or step % config.train.checkpoint_every_steps == 0
                if saving or step % config.train.log_every_steps == 0:
                    means = window.read(parallel, last_good)
                    means["train/images_per_second"] = (
                        means.pop("train/steps_per_second") * config.data.batch_size
                    )
                    # The schedule counts updates before the one that it is asked for.
                    means["train/learning_rate"] = float(schedule(step - 1))
                    writer.write(step, means)
                    bar.set_postfix(loss=f"{_total_loss(means, 'train'):.5g}", refresh=False)
                    bar.update(step * config.data.batch_size - bar.n)
                if stopping:
                    # Saved at once: who sends SIGTERM does not wait for a validation.
                    _save(checkpoints, parallel, step, state, {})
                    break
                if saving:
                    losses = _validate(
                        compiled_validation,
                        parallel,
                        state.variables,
                        validation_split,
                        config.evaluate.batch_size,
                    )
                    _check_finite(step, losses, last_good)
                    total = _total_loss(losses, "validation")
                    writer.write(step, {**losses, VALIDATION_LOSS: total})
                    _save(checkpoints, parallel, step, state, {VALIDATION_LOSS: total})
                    last_good = step
                    window.restart_clock()
            checkpoints.wait()
    if stopping:
        print(
            f"SIGTERM: saved step {step} of {num_steps} in '{workdir.checkpoints}'; "
            "the same command goes on from there.",
            flush=True,
        )
        return False
    return True


def _progress_bar(config: ConfigDict, start_step: int, num_steps: int) -> Any:
    """Images done, images/s and time left; only process 0 shows it."""
    size = config.data.batch_size
    return tqdm(
        total=num_steps * size,
        initial=start_step * size,
        desc=f"train {config.model.name}",
        unit="image",
        unit_scale=True,
        dynamic_ncols=True,
        disable=jax.process_index() != 0,
    )


def _total_loss(metrics: dict[str, float], prefix: str) -> float:
    """The sum of the losses of all networks."""
    return sum(value for name, value in metrics.items() if name.startswith(f"{prefix}/loss/"))


def _training(state: TrainState) -> dict[str, Tree]:
    return {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}


def _save(
    checkpoints: Checkpoints,
    parallel: Parallel,
    step: int,
    state: TrainState,
    metrics: dict[str, float],
) -> None:
    state = parallel.get_replicated(state) if parallel.mode == "pmap" else state
    checkpoints.save(step, state.variables, _training(state), metrics)


def _restore(checkpoints: Checkpoints, step: int, like: TrainState) -> TrainState:
    variables, training = checkpoints.restore(step, like.variables, _training(like))
    return TrainState(
        params=variables["params"],
        mutable={name: tree for name, tree in variables.items() if name != "params"},
        **training,
    )
