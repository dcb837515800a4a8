"""Which slices of which subjects hold an anomaly, so that a slice's position tells nothing.

Subjects are taken in blocks of three. Within a block every slice index is positive in exactly one
of the three, so a third of the slices is positive, equally often at every index. A block's plan
depends on its own number alone: more subjects never change the plan of earlier ones. Where the
number of subjects is no multiple of three, the last block is cut short, and how often an index is
positive differs between indices by at most one.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool

from jaxad.data.synthetic.fields import Purpose, keyed_generator
from jaxad.data.synthetic.template import NUM_SLICES

BLOCK = 3
"""Subjects per block of the plan; one in this many slices is positive."""

RUN_LENGTHS = (4, 9)
"""The fewest and the most slices of a lesion's run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Consecutive slices of one lesion.

    `start` to `stop` (exclusive) is the whole lesion, which may reach past the first or the last
    slice, where it is cut off.
    """

    start: int
    stop: int

    @property
    def slices(self) -> range:
        """The slice indices that the lesion shows in."""
        return range(max(self.start, 0), min(self.stop, NUM_SLICES))


def object_slices(seed: int, split: int, number: int) -> Bool[np.ndarray, "20"]:
    """Which slices of a subject hold a natural object: six or seven of the twenty.

    Args:
        seed: seed of the data set.
        split: number of the split.
        number: number of the subject in its split.
    """
    block, member = divmod(number, BLOCK)
    generator = keyed_generator(seed, split, block, Purpose.PLAN)
    # The block's subjects take turns through the slices, which are then shuffled; who is first,
    # and so may have one slice more, is drawn as well.
    owners = generator.permutation((np.arange(NUM_SLICES) + generator.integers(BLOCK)) % BLOCK)
    return owners == member


def lesion_runs(seed: int, split: int, number: int) -> tuple[Run, ...]:
    """The runs of slices of a subject's lesions: one, or two where the run is cut by the ends.

    The 20 slices are closed to a circle and cut, at a random place, into one run of 4 to 9 slices
    for each subject of the block. A run across the ends of the stack becomes two lesions that
    each reach past an end: a slice at the end thus sees the middle of a lesion as often as any.

    Args:
        seed: seed of the data set.
        split: number of the split.
        number: number of the subject in its split.
    """
    block, member = divmod(number, BLOCK)
    generator = keyed_generator(seed, split, block, Purpose.PLAN)
    shortest, longest = RUN_LENGTHS
    lengths = [
        (first, second, NUM_SLICES - first - second)
        for first in range(shortest, longest + 1)
        for second in range(shortest, longest + 1)
        if shortest <= NUM_SLICES - first - second <= longest
    ]
    cuts = np.cumsum((0, *lengths[generator.integers(len(lengths))]))
    turn = int(generator.integers(NUM_SLICES))
    start, stop = int(cuts[member]) + turn, int(cuts[member + 1]) + turn
    runs = (Run(start, stop), Run(start - NUM_SLICES, stop - NUM_SLICES))
    return tuple(run for run in runs if len(run.slices) > 0)
