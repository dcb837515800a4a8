"""Progress of training: a bar in a terminal, plain lines elsewhere; only on the first process."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxad.runtime import processes
from jaxad.runtime.environment import describe_devices, versions
from jaxad.runtime.progress import LINE_SECONDS, can_redraw, duration, progress_bar, time_of_day
from jaxad.train.metrics import Row
from jaxad.train.program import Program

logger = logging.getLogger(__name__)


class TrainingProgress(contextlib.AbstractContextManager["TrainingProgress"]):
    """Shows how far training is.

    A plain line has the time, step, epoch, losses and terms (means over the seeds of the program),
    images per second, and from the second line on the time left, at most every `LINE_SECONDS`;
    every validation and checkpoint has a line.
    """

    def __init__(self, program: Program, name: str, step: int, batch_size: int, num_examples: int):
        """Begins at a step of a program that trains `name`, a model on a data set."""
        self._num_steps = program.num_steps
        self._images_per_step = batch_size * len(program.seeds)
        self._epochs_per_step = batch_size / num_examples
        self._timed_from: tuple[int, float] | None = None
        self._logged: float | None = None
        self._has_lines = processes.is_first() and not can_redraw()
        count = len(program.seeds)
        description = f"train {name}" + (f" x {count}" if count > 1 else "")
        self._bar = progress_bar(
            total=self._num_steps * self._images_per_step,
            initial=step * self._images_per_step,
            desc=description, unit="image", unit_scale=True,
            disable=self._has_lines or not processes.is_first(),
        )  # fmt: skip
        if self._has_lines:
            devices = program.parallel.devices
            packages = ", ".join(f"{name} {version}" for name, version in versions().items())
            logger.info(
                f"{time_of_day()} {description}: {self._num_steps:,} steps on "
                f"{describe_devices(devices)}, {packages}"
            )

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, step: int, rows: Sequence[Row]) -> None:
        """Shows the metrics of training up to a step; a row for each seed."""
        if not self._has_lines:
            losses = (value for name, value in rows[-1].items() if name.startswith("train/loss/"))
            self._bar.set_postfix(loss=f"{sum(losses):.5g}", refresh=False)
            self._bar.update(step * self._images_per_step - self._bar.n)
            return
        now, is_last = time.monotonic(), step == self._num_steps
        if self._logged is not None and now - self._logged < LINE_SECONDS and not is_last:
            return
        self._logged = now
        left = ""
        if self._timed_from is None:  # the first updates were compiled, which takes long
            self._timed_from = step, now
        else:
            start_step, start = self._timed_from
            seconds = (now - start) / (step - start_step) * (self._num_steps - step)
            left = f", {duration(seconds)} left"
        logger.info(
            f"{time_of_day()} step {step:,} of {self._num_steps:,}, epoch "
            f"{step * self._epochs_per_step:.2f}: {_losses(rows, 'train/')}, "
            f"{rows[-1]['train/images_per_second']:.4g} images/s{left}"
        )

    def save(self, step: int, rows: Sequence[Row] | None) -> None:
        """Shows that a checkpoint is saved, with the validation losses if there are any."""
        if self._has_lines:
            losses = "" if rows is None else f"validation {_losses(rows, 'validation/')}; "
            logger.info(f"{time_of_day()} step {step:,}: {losses}checkpoint saved")


def _losses(rows: Sequence[Mapping[str, Any]], prefix: str) -> str:
    """Returns the losses and, in parentheses, the terms of metrics with a prefix."""
    parts = []
    for kind in ("loss", "term"):
        start = f"{prefix}{kind}/"
        names = [name for name in rows[0] if name.startswith(start)]
        means = {name[len(start) :]: np.mean([row[name] for row in rows]) for name in names}
        if kind == "loss" and len(means) == 1:
            parts.append(f"loss {next(iter(means.values())):.5g}")
        else:
            word = "loss " if kind == "loss" else ""
            parts.append(", ".join(f"{word}{name} {mean:.5g}" for name, mean in means.items()))
    losses, terms = parts
    return f"{losses} ({terms})" if terms else losses
