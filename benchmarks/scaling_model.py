"""How long an update takes on n chips that share each batch: a roofline and an all-reduce.

A chip computes as fast as the slower of its arithmetic and its memory, at a stated part of what the
vendor publishes; every kernel costs a fixed time on top. Then the gradients are summed over all
chips, level by level: within a node or a torus, then over the network between them. Nothing
overlaps: the programs have one all-reduce of all gradients, behind the backward pass.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

#: What is reached of the published arithmetic and of the memory's bandwidth. Assumed.
ARITHMETIC, MEMORY = 0.5, 0.8


@dataclasses.dataclass(frozen=True)
class Torus:
    """Chips in a grid of so many axes, each a ring where it is long enough.

    Attributes:
        size: chips at most.
        axes: of the grid.
        link: bytes/s of one link in one direction.
        ring_from: an axis of so many chips or more is closed to a ring.
        hop: seconds from a chip to its neighbour.
    """

    size: int
    axes: int
    link: float
    ring_from: int
    hop: float

    def shape(self, chips: int) -> tuple[int, ...]:
        """The most even grid of a power of two of chips."""
        power, axes = chips.bit_length() - 1, self.axes
        return tuple(2 ** ((power + axis) // axes) for axis in range(axes))

    def bandwidth(self, chips: int) -> float:
        """Bytes/s that a chip sends in an all-reduce: along all axes, on rings both ways."""
        lengths = [length for length in self.shape(chips) if length > 1]
        return sum(self.link * (2 if length >= self.ring_from else 1) for length in lengths)

    def latency(self, chips: int) -> float:
        """Seconds of an all-reduce of nothing: half of each ring, there and back."""
        return self.hop * sum(length for length in self.shape(chips) if length > 1)


@dataclasses.dataclass(frozen=True)
class Switched:
    """Chips that all reach each other through switches.

    Attributes:
        size: chips at most.
        egress: bytes/s that each sends.
        hop: seconds from a chip to another.
        is_tree: whether sums go up and down a binary tree; else along a chain.
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
    """An accelerator and what connects it to others.

    Attributes:
        name: as the tables print it.
        peak: FLOP/s of what jaxad's float32 programs run in there.
        memory: bytes/s.
        levels: from the closest chips outward.
        base: seconds that starting an all-reduce takes.
        launch: seconds that every kernel takes beside its work.
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
    """What grows with the images on a chip: `fixed + each * images`."""

    fixed: float
    each: float

    def at(self, images: float) -> float:
        return self.fixed + self.each * images


def fit_line(points: Mapping[int, float]) -> tuple[Line, float]:
    """The line through the first and the last point, and how far off the others are, relatively."""
    first, last = min(points), max(points)
    each = (points[last] - points[first]) / (last - first)
    line = Line(points[first] - each * first, each)
    return line, max(abs(line.at(images) / value - 1) for images, value in points.items())


@dataclasses.dataclass(frozen=True)
class Work:
    """The updates of one phase.

    Attributes:
        share: of the run's updates.
        flops: on each chip.
        bytes: that each chip's memory moves.
        all_reduces: bytes of each.
        kernels: that each chip runs.
    """

    share: float
    flops: Line
    bytes: Line
    all_reduces: tuple[int, ...]
    kernels: int


def read_work(phases: Mapping[str, Mapping[str, Any]]) -> tuple[Work, ...]:
    """The phases as `scaling.costs_of` wrote them."""
    found = []
    for phase in phases.values():
        points = {int(images): point for images, point in phase["points"].items()}
        largest = points[max(points)]
        found.append(
            Work(
                phase["share"],
                fit_line({images: point["flops"] for images, point in points.items()})[0],
                fit_line({images: point["bytes"] for images, point in points.items()})[0],
                tuple(largest["all_reduces"]),
                largest["kernels"],
            )
        )
    return tuple(found)


def all_reduce_seconds(chip: Chip, size: float, chips: int) -> float:
    """Seconds in which every one of the chips has the sum of `size` bytes of each.

    Each level's chips first sum a part each, which goes on to the next level; on the way back they
    give each other their parts: 2 (m - 1) / m of the bytes pass a chip's links.
    """
    seconds = chip.base if chips > 1 else 0.0
    for level in chip.levels:
        here = min(level.size, chips)
        if here > 1:
            seconds += 2 * (here - 1) / here * size / level.bandwidth(here) + level.latency(here)
        chips, size = chips // here, size / here
    return seconds


def compute_seconds(chip: Chip, work: Work, images: float) -> float:
    """The roofline: arithmetic or memory, the slower."""
    return max(
        work.flops.at(images) / (chip.peak * ARITHMETIC),
        work.bytes.at(images) / (chip.memory * MEMORY),
    )


def overhead_seconds(chip: Chip, work: Work, chips: int) -> float:
    """All that does not get less with a smaller batch: kernels and all-reduces."""
    reduces = sum(all_reduce_seconds(chip, size, chips) for size in work.all_reduces)
    return work.kernels * chip.launch + reduces


def step_seconds(chip: Chip, works: Sequence[Work], images: float, chips: int) -> float:
    """The mean update of a run with so many images on each chip."""
    return sum(
        work.share * (compute_seconds(chip, work, images) + overhead_seconds(chip, work, chips))
        for work in works
    )


def strong_efficiency(chip: Chip, works: Sequence[Work], batch: int, chips: int) -> float | None:
    """The speed-up over one chip by the number of chips, the batch shared; None: no image each."""
    if chips > batch:
        return None
    alone = step_seconds(chip, works, batch, 1)
    return alone / (chips * step_seconds(chip, works, batch / chips, chips))


def weak_efficiency(chip: Chip, works: Sequence[Work], images: int, chips: int) -> float:
    """One chip's update by that of many, with as many images on each."""
    return step_seconds(chip, works, images, 1) / step_seconds(chip, works, images, chips)


def critical_images(chip: Chip, works: Sequence[Work], chips: int) -> int:
    """The fewest images on a chip for which computing takes half of the update."""

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
