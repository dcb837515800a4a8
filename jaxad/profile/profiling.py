"""Profiles of training updates, compared with the peak of the devices: `--mode=profile`.

The updates are those of training: batches of the same pipeline, placed the same way, through the
same compiled program. Times are measured one step after another; images per second with steps that
overlap, as in training.
"""

import collections
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxad.config.model import PRECISIONS, image_shape
from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.pipeline.batching import HostBatch
from jaxad.profile.program_costs import ProgramCosts, program_costs
from jaxad.profile.time_shares import operation_seconds, shares
from jaxad.runtime import interrupts
from jaxad.runtime.parallel import Dispatched, Parallel
from jaxad.train.feature_cache import cached_features
from jaxad.train.phases import Phase, dispatches
from jaxad.train.program import Program, make_program, train_batches
from jaxad.types import Split, Tree

#: Steps before the timed ones, and traced steps.
WARM_STEPS, TRACED_STEPS = 3, 5
#: The matrix product of the peak grows until it takes this many seconds or has this many rows.
_LONG_ENOUGH, _LARGEST_MATRIX = 0.05, 8192
#: Number of batches whose features are computed if training reads them from its cache.
_BATCHES_OF_FEATURES = 4


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of repeated measurements."""

    median: float
    min: float
    max: float


@dataclasses.dataclass(frozen=True)
class Peak:
    """FLOP/s of all devices in their fastest product of square matrices, and the rows of these."""

    flops_per_second: float
    rows: int


@dataclasses.dataclass(frozen=True)
class PhaseProfile:
    """The updates of one phase.

    Attributes:
        networks: the networks that these updates train.
        updates: number of updates of this phase in the run.
        at_once: updates in a usual dispatch; the other values are of one update.
        step: seconds of an update whose batch is on the devices.
        input_wait: seconds to wait for the next batch of the pipeline.
        host_to_device: seconds to copy a batch to the devices.
        images_per_second: images per second when updates, copies, and pipeline overlap.
        costs: costs on one device, with the batch in one part.
        achieved: FLOP/s of all devices in the median step; None if FLOPs are unknown.
        fraction_of_peak: `achieved` divided by the peak.
        kinds, layers: shares of the time of operations; see `time_shares.shares`.
    """

    networks: Phase
    updates: int
    at_once: int
    compile_seconds: float
    step: Times
    input_wait: Times
    host_to_device: Times
    images_per_second: float
    costs: ProgramCosts
    achieved: float | None
    fraction_of_peak: float | None
    kinds: Mapping[str, float]
    layers: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Profile:
    """The training of a config on this machine.

    Attributes:
        about: the config and the machine.
        parameters: number of parameters, without a frozen encoder's.
        images_per_second: that of the whole run, without validation and checkpoints.
    """

    about: Mapping[str, Any]
    parameters: int
    peak: Peak
    phases: tuple[PhaseProfile, ...]
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Returns plain values; what the backend does not report is None."""
        return dataclasses.asdict(self)


def profile_training(config: ConfigDict, split: Split, folder: Path, steps: int) -> Profile:
    """Profiles the updates of each phase of a run.

    Features of a frozen encoder are computed for a few batches, which are repeated: the time to
    read a large cache from disk is not measured.

    Args:
        config: the config of the run.
        split: the training split.
        folder: receives the traces, `<network>+<network>/plugins/profile/...`.
        steps: dispatches to time in each phase, with and without overlap.

    Raises:
        UserError: the config has a mistake.
    """
    seeds = [int(config.seed)]
    program = make_program(config, seeds, len(split))
    counted = program
    if config.train.accumulate_steps > 1:
        # The parts are a loop, whose body XLA counts once: costs are counted with one part.
        whole = config.copy_and_resolve_references()
        whole.train.accumulate_steps = 1
        counted = make_program(whole, seeds, len(split))
    sample, features = _sample(config, program, split)
    updates, usual = _plan(config, program)
    dispatches_per_phase = 1 + WARM_STEPS + 2 * steps + TRACED_STEPS  # the first is only compiled
    needed = [count for count in usual.values() for _ in range(dispatches_per_phase)]
    batches = train_batches(config, seeds, sample, 0, needed, features)
    peak = measured_peak(program.parallel, config.precision)
    (initial,) = program.initial_states  # the first update donates it
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(initial.params))
    state = program.parallel.put_replicated(program.stack(program.initial_states))
    phases = []
    for phase, count in usual.items():
        dispatched, single = program.updates[phase, count], counted.updates[phase, 1]
        trace = folder / "+".join(phase)
        measurement = _Measurement(
            dispatched, single, program.parallel, phase, count, batches, trace
        )
        state, profile = measurement.profile(
            state, steps, updates[phase], peak, config.data.batch_size
        )
        phases.append(profile)
    seconds = sum(phase.updates / phase.images_per_second for phase in phases)
    return Profile(
        about=_about(config, program, features is not None),
        parameters=parameters,
        peak=peak,
        phases=tuple(phases),
        images_per_second=program.num_steps / seconds,
    )


def _plan(config: ConfigDict, program: Program) -> tuple[dict[Phase, int], dict[Phase, int]]:
    """Returns the number of updates of each phase, and how many of them are in a usual dispatch."""
    boundaries = (config.train.log_every_steps, program.save_every)
    counts: dict[Phase, collections.Counter[int]] = {}
    for phase, count in dispatches(program.phases, 0, config.train.steps_per_dispatch, boundaries):
        counts.setdefault(phase, collections.Counter())[count] += count
    updates = {phase: of_phase.total() for phase, of_phase in counts.items()}
    usual = {phase: max(of_phase, key=of_phase.__getitem__) for phase, of_phase in counts.items()}
    return updates, usual


@dataclasses.dataclass(frozen=True)
class _Measurement:
    """Measures the updates of a phase, `count` in a dispatch, on batches of the pipeline."""

    update: Dispatched
    counted: Dispatched
    parallel: Parallel
    phase: Phase
    count: int
    batches: Iterator[HostBatch]
    trace: Path

    def profile(
        self, state: Tree, steps: int, updates: int, peak: Peak, batch_size: int
    ) -> tuple[Tree, PhaseProfile]:
        """Returns the state after all steps, and the profile."""
        host_batch = next(self.batches)
        batch = self.parallel.put_batch(host_batch)
        start = time.perf_counter()
        # Calls of `update` use this program; it is not compiled twice.
        compiled = self.update.lower(state, batch).compile()
        compile_seconds = time.perf_counter() - start
        costs = program_costs(compiled)
        if self.counted is not self.update:
            if self.count > 1:
                host_batch = {name: array[:, 0] for name, array in host_batch.items()}
            counted = self.counted.lower(state, self.parallel.put_batch(host_batch)).compile()
            costs = dataclasses.replace(program_costs(counted), peak_memory=costs.peak_memory)
        state, _ = self._one_by_one(state, WARM_STEPS)
        state, (waits, copies, times) = self._one_by_one(state, steps)
        state, seconds = self._overlapping(state, steps)
        state = self._traced(state)
        kinds, layers = shares(operation_seconds(self.trace), compiled.as_text() or "")
        step = _times(times, self.count)
        achieved = None
        if costs.flops is not None:
            achieved = costs.flops * len(self.parallel.devices) / step.median
        return state, PhaseProfile(
            networks=self.phase,
            updates=updates,
            at_once=self.count,
            compile_seconds=compile_seconds,
            step=step,
            input_wait=_times(waits, self.count),
            host_to_device=_times(copies, self.count),
            images_per_second=steps * self.count * batch_size / seconds,
            costs=costs,
            achieved=achieved,
            fraction_of_peak=None if achieved is None else achieved / peak.flops_per_second,
            kinds=kinds,
            layers=layers,
        )

    def _one_by_one(self, state: Tree, steps: int) -> tuple[Tree, tuple[list[float], ...]]:
        """Returns the seconds of each step's wait for input, copy, and update, without overlap."""
        rows = []
        for _ in range(steps):
            interrupts.check()
            marks = [time.perf_counter()]
            host_batch = next(self.batches)
            marks.append(time.perf_counter())
            batch = jax.block_until_ready(self.parallel.put_batch(host_batch))
            marks.append(time.perf_counter())
            state = self._step(state, batch)
            marks.append(time.perf_counter())
            rows.append([after - before for before, after in itertools.pairwise(marks)])
        return state, tuple(map(list, zip(*rows, strict=True)))

    def _step(self, state: Tree, batch: Tree) -> Tree:
        with jax.transfer_guard("disallow"):
            state, metrics = self.update(state, batch)
        jax.block_until_ready((state, metrics))
        return state

    def _overlapping(self, state: Tree, steps: int) -> tuple[Tree, float]:
        """Returns the seconds of all steps together, run as in training."""
        start = time.perf_counter()
        for batch in self.parallel.prefetch(itertools.islice(self.batches, steps)):
            interrupts.check()
            with jax.transfer_guard("disallow"):
                state, _ = self.update(state, batch)
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    def _traced(self, state: Tree) -> Tree:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # calls of Python functions would fill the trace
        with jax.profiler.trace(str(self.trace), profiler_options=options):
            for number in range(TRACED_STEPS):
                with jax.profiler.TraceAnnotation("input"):
                    host_batch = next(self.batches)
                with jax.profiler.TraceAnnotation("host to device"):
                    batch = jax.block_until_ready(self.parallel.put_batch(host_batch))
                with jax.profiler.StepTraceAnnotation("update", step_num=number):
                    state = self._step(state, batch)
        return state


def _times(seconds: Sequence[float], count: int) -> Times:
    """Returns the times of one update from those of `count` updates."""
    each = [time / count for time in seconds]
    return Times(statistics.median(each), min(each), max(each))


def _sample(config: ConfigDict, program: Program, split: Split) -> tuple[Split, np.ndarray | None]:
    """Returns the images to train on, and their features if training reads them from its cache."""
    count = min(len(split), _BATCHES_OF_FEATURES * config.data.batch_size)
    few = split.rows(np.arange(count))
    with tempfile.TemporaryDirectory() as folder:
        config = config.copy_and_resolve_references()
        if config.train.feature_cache != "off":
            config.train.feature_cache = folder
        (initial,) = program.initial_states
        features = cached_features(
            config,
            program.model,
            program.parallel,
            [initial.variables],
            {"train": few},
            images_change=not Augmentation(**config.data.augment).is_off,
        ).get("train")
        if features is None:
            return split, None
        return few, np.array(features)  # a copy: the file is deleted with the folder


def measured_peak(parallel: Parallel, precision: str) -> Peak:
    """Measures the FLOP/s of a matrix product, with a product on every device at the same time."""
    dtype = PRECISIONS[precision]
    # Each device has a matrix of the batch, and all have the other one.
    multiply = parallel.compile_per_example(lambda matrix, batch: batch["rows"] @ matrix)
    devices, rows = len(parallel.devices), 512
    while True:
        rng = np.random.default_rng(0)
        matrices = rng.standard_normal((devices * rows, rows), np.float32).astype(dtype)
        matrix = parallel.put_replicated(matrices[:rows])
        batch = parallel.put_batch({"rows": matrices})
        jax.block_until_ready(multiply(matrix, batch))
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(multiply(matrix, batch))
            seconds.append(time.perf_counter() - start)
        if min(seconds) >= _LONG_ENOUGH or rows >= _LARGEST_MATRIX:
            return Peak(2 * devices * rows**3 / min(seconds), rows)
        rows *= 2


def _about(config: ConfigDict, program: Program, has_features: bool) -> dict[str, Any]:
    devices = program.parallel.devices
    return {
        "model": config.model.name,
        "image_shape": list(image_shape(config)),
        "batch_size": config.data.batch_size,
        "features": "read from the cache" if has_features else "computed in the step",
        "precision": config.precision,
        "parallel": config.parallel,
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "updates": program.num_steps,
        "jax": jax.__version__,
    }
