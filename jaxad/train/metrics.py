"""The metrics of training and validation: means over steps, and the check that they are finite."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxad.data.pipeline import batching
from jaxad.errors import RunError
from jaxad.runtime import processes
from jaxad.train.program import Program
from jaxad.types import Split, Tree

#: Metrics of one run by name. Functions return one row for each seed of the program.
Row = dict[str, float]


class StepMetrics:
    """Collects the metrics of updates; they stay on the devices until they are read.

    `images_per_step` counts the images in an update of all seeds.
    """

    def __init__(self, program: Program, images_per_step: int) -> None:
        self._program = program
        self._images_per_step = images_per_step
        self._pending: list[tuple[int, int, Tree]] = []
        self._start = time.monotonic()

    def add(self, step: int, count: int, metrics: Tree) -> None:
        """Adds the metrics of `count` updates, the last of which is number `step`."""
        self._pending.append((step, count, metrics))

    def read(self, last_saved: int | None) -> list[Row]:
        """Returns means over the steps since the last read, speed, and learning rates.

        Args:
            last_saved: the step of the last checkpoint, for the message.

        Raises:
            RunError: a value is not finite; names the first such step and term.
        """
        program = self._program
        steps = []
        for last, count, metrics in self._pending:
            host = program.parallel.get_replicated(metrics)
            for number in range(count):
                one = host if count == 1 else jax.tree.map(lambda x, n=number: x[n], host)
                rows = program.unstack(one)
                check_finite(last - count + 1 + number, program.seeds, rows, last_saved)
                steps.append(rows)
        steps_per_second = len(steps) / (time.monotonic() - self._start)
        self.restart_clock()
        shared = {
            "images_per_second": steps_per_second * self._images_per_step,
            **program.learning_rates(self._pending[-1][0] - 1),
        }
        self._pending = []
        return [
            {f"train/{name}": value for name, value in (_means(rows) | shared).items()}
            for rows in zip(*steps, strict=True)
        ]

    def exclude(self, seconds: float) -> None:
        """Excludes time, such as that of a compilation, from the reported speed."""
        self._start += seconds

    def restart_clock(self) -> None:
        """Excludes the time up to now, such as that of a validation or a save, from the speed."""
        self._start = time.monotonic()


def _means(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Averages every metric over the steps that have it; phases have different metrics."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(float(value))
    return {name: float(np.mean(of_name)) for name, of_name in values.items()}


def check_finite(
    step: int, seeds: Sequence[int], rows: Sequence[Mapping[str, Any]], last_saved: int | None
) -> None:
    """Raises a RunError if a metric of a seed is not finite; names the first such term."""
    for seed, row in zip(seeds, rows, strict=True):
        # A term comes before the loss that sums it: the message is to name the term.
        for name in sorted(row, key=lambda name: "term/" not in name):
            if not np.isfinite(row[name]):
                good = "there is no checkpoint yet"
                if last_saved is not None:
                    good = f"the last good checkpoint is step {last_saved}"
                raise RunError(
                    f"step {step}: {name} is {float(row[name])} (seed {seed}); the run stops; "
                    f"{good}. Try a smaller config.optim.learning_rate or a "
                    "config.optim.clip_norm."
                )


def validate(
    program: Program, state: Tree, split: Split, batch_size: int, features: np.ndarray | None
) -> list[Row] | None:
    """Computes the mean losses and terms over a split, every example counted once.

    Args:
        program: the program that computes them.
        state: the state on the devices.
        split: the validation split.
        batch_size: images per device.
        features: those of the images, if they are cached.

    Returns:
        A row for each seed; None if a signal asks to stop.
    """
    arrays = {"label": split.labels, **({} if features is None else {"features": features})}
    batches = batching.eval_batches(
        split.images,
        arrays,
        batch_size=batch_size * len(program.parallel.devices),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    sums = []
    for batch in program.parallel.prefetch(batches):
        if processes.stop_requested():
            return None
        of_batch = program.parallel.get_replicated(program.validation(state, batch))
        sums.append(program.unstack(of_batch))
    return [_validation_means(of_seed) for of_seed in zip(*sums, strict=True)]


def _validation_means(batches: Sequence[tuple[Mapping[str, Any], Any]]) -> Row:
    """Divides the sums over batches by the number of examples."""
    count = sum(float(number) for _, number in batches)
    return {
        f"validation/{name}": sum(float(sums[name]) for sums, _ in batches) / count
        for name in batches[0][0]
    }
