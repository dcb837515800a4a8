"""A plan of the slices that hold an anomaly, so that the position of a slice predicts nothing.

Subjects form blocks of three. Within a block each slice index is positive in exactly one of the
three subjects, so that a third of the slices is positive, equally often at each index. The plan of
a block depends on its number alone: more subjects do not change the plan of earlier ones. If the
number of subjects is no multiple of three, the counts of positives at two indices differ by at most
one.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool

from jaxad.data.synthetic.fields import Purpose, SubjectKey
from jaxad.data.synthetic.template import NUM_SLICES

BLOCK = 3
"""Subjects per block; one in this many slices is positive."""

RUN_LENGTHS = (4, 9)
"""The smallest and the largest number of slices of a lesion."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Consecutive slices of one lesion, from `start` to `stop` (exclusive).

    The lesion may reach past the first or the last slice, where it is cut off.
    """

    start: int
    stop: int

    @property
    def slices(self) -> range:
        """Indices of the slices that show the lesion."""
        return range(max(self.start, 0), min(self.stop, NUM_SLICES))


def _block_generator(key: SubjectKey) -> tuple[np.random.Generator, int]:
    """Returns the generator of a subject's block, and the subject's number in the block."""
    block, member = divmod(key.number, BLOCK)
    return dataclasses.replace(key, number=block).generator(Purpose.PLAN), member


def object_slices(key: SubjectKey) -> Bool[np.ndarray, "20"]:
    """Draws the slices of a subject that hold a natural object: six or seven of the twenty."""
    generator, member = _block_generator(key)
    # The subjects of the block take turns through the slices, which are then shuffled. The first
    # one, which may get one slice more, is drawn as well.
    owners = generator.permutation((np.arange(NUM_SLICES) + generator.integers(BLOCK)) % BLOCK)
    return owners == member


def lesion_runs(key: SubjectKey) -> tuple[Run, ...]:
    """Draws the slices of a subject's lesions: one run, or two if the ends of the stack cut it.

    The 20 slices form a circle that is cut at a random place into one run of 4 to 9 slices for each
    subject of the block. A run across the ends of the stack becomes two lesions, each of which
    reaches past an end, so that end slices show the middle of a lesion as often as others do.
    """
    generator, member = _block_generator(key)
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
