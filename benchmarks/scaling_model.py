"""Model of the time of an update on n chips that share each batch: a roofline and an all-reduce.

The slower of arithmetic and memory limits a chip, at a stated fraction of the published peaks;
every kernel adds a fixed time. Then the gradients are summed over all chips, level by level: within
a node or a torus, then over the network between them. Nothing overlaps: the programs have one
all-reduce of all gradients, after the backward pass.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Fractions of the published arithmetic and memory bandwidth that are reached. Assumed.
ARITHMETIC, MEMORY = 0.5, 0.8


@dataclasses.dataclass(frozen=True)
class Torus:
    """Chips in a grid whose axes are rings if they are long enough.

    Attributes:
        size: largest number of chips.
        axes: number of axes of the grid.
        link: bytes/s of one link in one direction.
        ring_from: smallest length of an axis that is a ring.
        hop: seconds from a chip to its neighbour.
    """

    size: int
    axes: int
    link: float
    ring_from: int
    hop: float

    def shape(self, chips: int) -> tuple[int, ...]:
        """Returns the most even grid; `chips` is a power of two."""
        power, axes = chips.bit_length() - 1, self.axes
        return tuple(2 ** ((power + axis) // axes) for axis in range(axes))

    def bandwidth(self, chips: int) -> float:
        """Returns bytes/s that a chip sends in an all-reduce: all axes, on rings both ways."""
        lengths = [length for length in self.shape(chips) if length > 1]
        return sum(self.link * (2 if length >= self.ring_from else 1) for length in lengths)

    def latency(self, chips: int) -> float:
        """Returns seconds of an all-reduce of no bytes: half of each ring, there and back."""
        return self.hop * sum(length for length in self.shape(chips) if length > 1)


@dataclasses.dataclass(frozen=True)
class Switched:
    """Chips that are connected through switches.

    Attributes:
        size: largest number of chips.
        egress: bytes/s that each chip sends.
        hop: seconds from one chip to another.
        is_tree: whether sums follow a binary tree; otherwise a chain.
    """

    size: int
    egress: float
    hop: float
    is_tree: bool

    def bandwidth(self, chips: int) -> float:
        return self.egress

    def latency(self, chips: int) -> float:
        return 2 * self.hop * (math.log2(chips) if self.is_tree else chips - 1)


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator and its connections.

    Attributes:
        name: name in the tables.
        peak: FLOP/s at the precision in which jaxad's float32 programs multiply there.
        memory: bytes/s.
        levels: connections, from the closest chips outward.
        base: seconds to start an all-reduce.
        launch: overhead of every kernel in seconds.
    """

    name: str
    peak: float
    memory: float
    levels: tuple[Torus | Switched, ...]
    base: float
    launch: float


_EVERYTHING = 2**20

#: Sources: docs/scaling.md.
CHIPS = (
    Chip(
        "TPU v5e", 197e12, 819e9,
        (Torus(256, 2, 45e9, 16, 1e-6), Switched(_EVERYTHING, 3.125e9, 25e-6, True)),
        base=1e-6, launch=0.5e-6,
    ),
    Chip("TPU v5p", 459e12, 2765e9, (Torus(8192, 3, 90e9, 4, 1e-6),), base=1e-6, launch=0.5e-6),
    Chip(
        "A100", 156e12, 2039e9,
        (Switched(8, 300e9, 0.6e-6, False), Switched(_EVERYTHING, 25e9, 5e-6, True)),
        base=6.8e-6, launch=2e-6,
    ),
    Chip(
        "H100", 494.5e12, 3350e9,
        (Switched(8, 450e9, 0.6e-6, False), Switched(_EVERYTHING, 50e9, 5e-6, True)),
        base=6.8e-6, launch=2e-6,
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Line:
    """A cost that is linear in the images on a chip: `fixed + each * images`."""

    fixed: float
    each: float

    def at(self, images: float) -> float:
        return self.fixed + self.each * images


def fit_line(points: Mapping[int, float]) -> tuple[Line, float]:
    """Returns the line through the first and last point, and the largest relative error."""
    first, last = min(points), max(points)
    each = (points[last] - points[first]) / (last - first)
    line = Line(points[first] - each * first, each)
    return line, max(abs(line.at(images) / value - 1) for images, value in points.items())


@dataclasses.dataclass(frozen=True)
class Work:
    """Costs of one phase's updates.

    Attributes:
        share: fraction of the run's updates.
        flops: operations on each chip.
        bytes: bytes through each chip's memory.
        all_reduces: bytes of each all-reduce.
        kernels: number of kernels on each chip.
    """

    share: float
    flops: Line
    bytes: Line
    all_reduces: tuple[int, ...]
    kernels: int


def read_work(phases: Mapping[str, Mapping[str, Any]]) -> tuple[Work, ...]:
    """Reads phases as `scaling_programs.costs_of` returns them."""
    works = []
    for phase in phases.values():
        points = {int(images): point for images, point in phase["points"].items()}
        largest = points[max(points)]
        works.append(
            Work(
                phase["share"],
                fit_line({images: point["flops"] for images, point in points.items()})[0],
                fit_line({images: point["bytes"] for images, point in points.items()})[0],
                tuple(largest["all_reduces"]),
                largest["kernels"],
            )
        )
    return tuple(works)


def all_reduce_seconds(chip: Chip, size: float, chips: int) -> float:
    """Returns seconds until all chips have the sum over chips of `size` bytes.

    At each level every chip sums a part, which goes to the next level; on the way back the chips
    exchange their parts. 2 (m - 1) / m of the bytes pass a chip's links.
    """
    seconds = chip.base if chips > 1 else 0.0
    for level in chip.levels:
        here = min(level.size, chips)
        if here > 1:
            seconds += 2 * (here - 1) / here * size / level.bandwidth(here) + level.latency(here)
        chips, size = chips // here, size / here
    return seconds


def compute_seconds(chip: Chip, work: Work, images: float) -> float:
    """Returns the roofline: the slower of arithmetic and memory."""
    return max(
        work.flops.at(images) / (chip.peak * ARITHMETIC),
        work.bytes.at(images) / (chip.memory * MEMORY),
    )


def overhead_seconds(chip: Chip, work: Work, chips: int) -> float:
    """Returns the time that does not depend on the batch: kernels and all-reduces."""
    reduces = sum(all_reduce_seconds(chip, size, chips) for size in work.all_reduces)
    return work.kernels * chip.launch + reduces


def step_seconds(chip: Chip, works: Sequence[Work], images: float, chips: int) -> float:
    """Returns the mean time of a run's updates with `images` on each chip."""
    return sum(
        work.share * (compute_seconds(chip, work, images) + overhead_seconds(chip, work, chips))
        for work in works
    )


def strong_efficiency(chip: Chip, works: Sequence[Work], batch: int, chips: int) -> float | None:
    """Returns the speed-up divided by the number of chips that share a batch.

    None if there are fewer images than chips.
    """
    if chips > batch:
        return None
    alone = step_seconds(chip, works, batch, 1)
    return alone / (chips * step_seconds(chip, works, batch / chips, chips))


def weak_efficiency(chip: Chip, works: Sequence[Work], images: int, chips: int) -> float:
    """Returns one chip's time divided by that of `chips`, with `images` on each."""
    return step_seconds(chip, works, images, 1) / step_seconds(chip, works, images, chips)


def critical_images(chip: Chip, works: Sequence[Work], chips: int) -> int:
    """Returns the fewest images on a chip for which computing takes half of the update."""

    def is_enough(images: int) -> bool:
        computing = sum(work.share * compute_seconds(chip, work, images) for work in works)
        return 2 * computing >= step_seconds(chip, works, images, chips)

    high = 1
    while not is_enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
