"""What an update takes, and of it the machine's best: `--mode=profile`.

The steps are training's own: the pipeline's batches, put where training puts them, through the
program that training compiles. Times are of steps that wait for each other; images per second of
steps that do not, as in training.
"""

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
from jaxad.data.pipeline.batching import HostBatch
from jaxad.profile.program_costs import ProgramCosts, program_costs
from jaxad.profile.time_shares import operation_seconds, shares
from jaxad.runtime import interrupts
from jaxad.runtime.parallel import Parallel
from jaxad.train import experiment
from jaxad.train.feature_cache import cached_features
from jaxad.train.phases import Phase, dispatches
from jaxad.train.program import Program, make_program, train_batches
from jaxad.types import Split, Tree

#: Steps before any is timed, and steps that are traced.
WARM_STEPS, TRACED_STEPS = 3, 5
#: The matrix product is made larger until one takes so many seconds, or is of so many rows.
_LONG_ENOUGH, _LARGEST_MATRIX = 0.05, 8192
#: Batches of images whose features are computed, where training reads them from its cache.
_BATCHES_OF_FEATURES = 4


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of something that was done several times."""

    median: float
    min: float
    max: float


@dataclasses.dataclass(frozen=True)
class Peak:
    """The fastest matrix product of all devices together.

    Attributes:
        flops_per_second: of all devices.
        rows: each device multiplied two square matrices of so many rows.
    """

    flops_per_second: float
    rows: int


@dataclasses.dataclass(frozen=True)
class PhaseProfile:
    """The updates of one phase.

    Attributes:
        networks: that these updates train.
        updates: how many of the run's are of this phase.
        at_once: how many of them a dispatch usually holds; all figures are of one.
        compile_seconds: of the step's program.
        step: seconds of an update, its batch being there.
        input_wait: seconds until the pipeline's next batch is there, an update after the last.
        host_to_device: seconds in which a batch is copied to the devices.
        images_per_second: where updates, copies and pipeline overlap.
        costs: of one device; operations and bytes of a batch that is taken in one part.
        achieved: FLOP/s of all devices in the median step; None where FLOPs are not known.
        fraction_of_peak: `achieved` of the measured peak.
        kinds: share of the operations' time by JAX's primitive; empty where it is not known.
        layers: share of the operations' time by layer; empty where it is not known.
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
    """A config's training on this machine.

    Attributes:
        about: what was measured where.
        parameters: that the system has, the frozen ones of an encoder left out.
        peak: measured in the same run.
        phases: in the order in which the run comes to them.
        images_per_second: of the whole run's updates, without validation and checkpoints.
    """

    about: Mapping[str, Any]
    parameters: int
    peak: Peak
    phases: tuple[PhaseProfile, ...]
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Plain values; what the backend does not tell is None."""
        return dataclasses.asdict(self)


def profile_training(config: ConfigDict, split: Split, folder: Path, steps: int) -> Profile:
    """Profiles the updates of a run from its beginning, each phase's by itself.

    A frozen encoder's features are computed for a few batches, which then come again and again, and
    are not kept: how fast a large cache is read from its disk does not show.

    Args:
        config: the run.
        split: to train on.
        folder: where traces are written, `<network>+<network>/plugins/profile/...`.
        steps: dispatches to time in each phase, each way.

    Raises:
        UserError: the config asks for something that cannot be.
    """
    seeds = [int(config.seed)]
    program = make_program(config, seeds, len(split))
    counted = program
    if config.train.accumulate_steps > 1:
        # The parts are a loop, whose body XLA counts once: counted is the batch in one part.
        whole = config.copy_and_resolve_references()
        whole.train.accumulate_steps = 1
        counted = make_program(whole, seeds, len(split))
    sample, features = _sample(config, program, split)
    updates, usual = _plan(config, program)
    needed = [count for count in usual.values() for _ in range(_dispatches(steps))]
    batches = train_batches(config, seeds, sample, 0, needed, features)
    peak = measured_peak(program.parallel, config.precision)
    (initial,) = program.initial_states  # on a single device the first update takes them over
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(initial.params))
    state = program.parallel.put_replicated(program.stack(program.initial_states))
    phases = []
    for phase, count in usual.items():
        measured = _Measured(program, counted, phase, count, batches, folder / "+".join(phase))
        state, found = measured.profile(state, steps, updates[phase], peak, config.data.batch_size)
        phases.append(found)
    seconds = sum(one.updates / one.images_per_second for one in phases)
    return Profile(
        about=_about(config, program, features is not None),
        parameters=parameters,
        peak=peak,
        phases=tuple(phases),
        images_per_second=program.num_steps / seconds,
    )


def _dispatches(steps: int) -> int:
    """How many dispatches one phase's profile takes, the one among them that only has a shape."""
    return 1 + WARM_STEPS + 2 * steps + TRACED_STEPS


def _plan(config: ConfigDict, program: Program) -> tuple[dict[Phase, int], dict[Phase, int]]:
    """Of each phase the run's updates, and how many of them a dispatch usually holds."""
    boundaries = (config.train.log_every_steps, config.train.checkpoint_every_steps)
    found: dict[Phase, dict[int, int]] = {}
    for phase, count in dispatches(program.phases, 0, config.train.steps_per_dispatch, boundaries):
        of_phase = found.setdefault(phase, {})
        of_phase[count] = of_phase.get(count, 0) + count
    updates = {phase: sum(of_phase.values()) for phase, of_phase in found.items()}
    usual = {phase: max(of_phase, key=of_phase.__getitem__) for phase, of_phase in found.items()}
    return updates, usual


class _Measured:
    """One phase's updates, `count` at once, fed by the pipeline."""

    def __init__(
        self,
        program: Program,
        counted: Program,
        phase: Phase,
        count: int,
        batches: Iterator[HostBatch],
        trace: Path,
    ) -> None:
        self._update = program.updates[phase, count]
        self._counted = counted.updates[phase, 1]
        self._parallel = program.parallel
        self._phase = phase
        self._count = count
        self._batches = batches
        self._trace = trace

    def profile(
        self, state: Tree, steps: int, updates: int, peak: Peak, batch_size: int
    ) -> tuple[Tree, PhaseProfile]:
        """The state after all of it, and what was found."""
        host_batch = next(self._batches)
        batch = self._parallel.put_batch(host_batch)
        start = time.perf_counter()
        # `_update`, which is jitted, finds this program; it is not compiled twice.
        compiled = self._update.lower(state, batch).compile()
        compile_seconds = time.perf_counter() - start
        costs = program_costs(compiled)
        if self._counted is not self._update:
            one = {
                name: array[:, 0] if self._count > 1 else array
                for name, array in host_batch.items()
            }
            counted = self._counted.lower(state, self._parallel.put_batch(one)).compile()
            costs = dataclasses.replace(program_costs(counted), peak_memory=costs.peak_memory)
        state, _ = self._one_by_one(state, WARM_STEPS)
        state, (waits, copies, times) = self._one_by_one(state, steps)
        state, seconds = self._overlapping(state, steps)
        state = self._traced(state)
        kinds, layers = shares(operation_seconds(self._trace), compiled.as_text() or "")
        step = _times(times, self._count)
        achieved = None
        if costs.flops is not None:
            achieved = costs.flops * len(self._parallel.devices) / step.median
        return state, PhaseProfile(
            networks=self._phase,
            updates=updates,
            at_once=self._count,
            compile_seconds=compile_seconds,
            step=step,
            input_wait=_times(waits, self._count),
            host_to_device=_times(copies, self._count),
            images_per_second=steps * self._count * batch_size / seconds,
            costs=costs,
            achieved=achieved,
            fraction_of_peak=None if achieved is None else achieved / peak.flops_per_second,
            kinds=kinds,
            layers=layers,
        )

    def _one_by_one(self, state: Tree, steps: int) -> tuple[Tree, tuple[list[float], ...]]:
        """Seconds of each step's wait for input, copy and update, none overlapping another."""
        rows = []
        for _ in range(steps):
            interrupts.check()
            marks = [time.perf_counter()]
            host_batch = next(self._batches)
            marks.append(time.perf_counter())
            batch = jax.block_until_ready(self._parallel.put_batch(host_batch))
            marks.append(time.perf_counter())
            state = self._step(state, batch)
            marks.append(time.perf_counter())
            rows.append([after - before for before, after in itertools.pairwise(marks)])
        return state, tuple(map(list, zip(*rows, strict=True)))

    def _step(self, state: Tree, batch: Tree) -> Tree:
        with jax.transfer_guard("disallow"):
            state, metrics = self._update(state, batch)
        jax.block_until_ready((state, metrics))
        return state

    def _overlapping(self, state: Tree, steps: int) -> tuple[Tree, float]:
        """Seconds of all steps, run as training runs them."""
        start = time.perf_counter()
        for batch in self._parallel.prefetch(itertools.islice(self._batches, steps)):
            interrupts.check()
            with jax.transfer_guard("disallow"):
                state, _ = self._update(state, batch)
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    def _traced(self, state: Tree) -> Tree:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # calls of Python would fill the trace
        with jax.profiler.trace(str(self._trace), profiler_options=options):
            for number in range(TRACED_STEPS):
                with jax.profiler.TraceAnnotation("input"):
                    host_batch = next(self._batches)
                with jax.profiler.TraceAnnotation("host to device"):
                    batch = jax.block_until_ready(self._parallel.put_batch(host_batch))
                with jax.profiler.StepTraceAnnotation("update", step_num=number):
                    state = self._step(state, batch)
        return state


def _times(seconds: Sequence[float], count: int) -> Times:
    """Of one update where each time is of `count`."""
    each = [one / count for one in seconds]
    return Times(statistics.median(each), min(each), max(each))


def _sample(config: ConfigDict, program: Program, split: Split) -> tuple[Split, np.ndarray | None]:
    """What to train on, with the features that training would find in its cache; None: without."""
    few = _first(split, _BATCHES_OF_FEATURES * config.data.batch_size)
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
            images_change=not experiment.augmentation(config).is_off,
        ).get("train")
        if features is None:
            return split, None
        return few, np.array(features)  # the file goes with the folder


def _first(split: Split, count: int) -> Split:
    return dataclasses.replace(
        split,
        images=split.images[:count],
        labels=split.labels[:count],
        ids=split.ids[:count],
        groups=split.groups[:count],
        masks=None if split.masks is None else split.masks[:count],
        positions=None if split.positions is None else split.positions[:count],
    )


def measured_peak(parallel: Parallel, precision: str) -> Peak:
    """The FLOP/s of a matrix product on the devices, each multiplying its own at the same time."""
    dtype = PRECISIONS[precision]
    # `batch` is what the devices share, a matrix each; the other they all have.
    multiply = parallel.compile_per_example(lambda matrix, batch: batch["rows"] @ matrix)
    devices, rows = len(parallel.devices), 512
    while True:
        rng = np.random.default_rng(0)
        own = rng.standard_normal((devices * rows, rows), np.float32).astype(dtype)
        matrix = parallel.put_replicated(own[:rows])
        batch = parallel.put_batch({"rows": own})
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
