"""The schedule of networks: which of them each update trains, in alternation or in stages.

The phase of an update depends on its number alone and is known to the host. Every distinct phase is
a program, compiled when it first occurs; a run that resumes is in the same phase as an
uninterrupted one.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxad.errors import UserError

#: The networks that an update trains.
Phase = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Part:
    """The updates of one network: every `every`-th of those from `first` to `last`."""

    first: int
    last: int
    every: int

    def count(self, step: int) -> int:
        """Counts the network's updates among the first `step` of the run."""
        return max(0, min(step, self.last) - self.first) // self.every

    def is_at(self, step: int) -> bool:
        return self.count(step + 1) > self.count(step)


@dataclasses.dataclass(frozen=True)
class Phases:
    """The schedule of a run: its number of updates, and the part of each network in them."""

    num_steps: int
    parts: Mapping[str, _Part]

    def at(self, step: int) -> Phase:
        """Returns the networks that update `step` (0-based) trains."""
        return tuple(name for name, part in self.parts.items() if part.is_at(step))

    def all_begun(self, step: int) -> bool:
        """Tells whether every network has been trained among the first `step` updates.

        Earlier validation losses do not tell which state of the whole model is better.
        """
        return all(part.count(step) for part in self.parts.values())

    def count(self, network: str, step: int | None = None) -> int:
        """Counts a network's updates among the first `step` of the run, by default all."""
        return self.parts[network].count(self.num_steps if step is None else step)


def make_phases(
    schedule: ConfigDict | Mapping[str, Any], networks: Collection[str], num_steps: int
) -> Phases:
    """Makes the schedule that `config.train.updates` describes.

    Args:
        schedule: network -> (start, end, every): the network trains between these fractions of the
            run, both in [0, 1], at every `every`-th update. A network that is not named trains in
            every update.
        networks: the networks of the model.
        num_steps: updates in the run.

    Raises:
        UserError: an unknown network or a malformed schedule.
    """
    for name in schedule:
        if name not in networks:
            raise UserError(
                f"config.train.updates.{name}: this model has no such network; it has "
                f"{', '.join(networks)}."
            )
    parts = {name: _part(name, schedule.get(name, (0.0, 1.0, 1)), num_steps) for name in networks}
    return Phases(num_steps, parts)


def check_phases(phases: Phases) -> None:
    """Raises a UserError unless every network is trained, and some network in every update."""
    num_steps = phases.num_steps
    for name, part in phases.parts.items():
        if not part.count(num_steps):
            raise UserError(
                f"config.train.updates.{name}: {num_steps} updates are too few to train "
                f"'{name}' even once; train longer or change its schedule."
            )
    idle = next((step for step in range(num_steps) if not phases.at(step)), None)
    if idle is not None:
        raise UserError(
            f"config.train.updates: update {idle + 1} of {num_steps} would train no network; "
            "leave no gap between the schedules, and let one network train at every update."
        )


def dispatches(
    phases: Phases, start_step: int, size: int, boundaries: Sequence[int]
) -> Iterator[tuple[Phase, int]]:
    """Yields the dispatches of the updates from `start_step` on, as (phase, number of updates).

    A dispatch has `size` updates if they are of one phase and no boundary falls between them, else
    one. The grouping depends on the numbers of the updates alone, so that a run that resumes uses
    the same programs as an uninterrupted one.

    Args:
        phases: the schedule of the run.
        start_step: updates done before.
        size: largest number of updates in a dispatch, at least 1.
        boundaries: periods in updates after which the host has something to do.
    """
    step = start_step
    while step < phases.num_steps:
        last = step + size - 1
        together = (
            step % size == 0
            and last < phases.num_steps
            and all(step // every == last // every for every in boundaries)
            and len({phases.at(number) for number in range(step, last + 1)}) == 1
        )
        count = size if together else 1
        yield phases.at(step), count
        step += count


def _part(name: str, value: Any, num_steps: int) -> _Part:
    field = f"config.train.updates.{name}"
    if not isinstance(value, tuple) or len(value) != 3:
        raise UserError(f"{field}: {value!r}; give (start, end, every), such as (0.0, 0.5, 1).")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in value):
        raise UserError(f"{field}: {value}; give three numbers, such as (0.0, 0.5, 1).")
    start, end, every = value
    if not 0 <= start < end <= 1:
        raise UserError(
            f"{field}: {value}; start and end are fractions of the run, 0 <= start < end <= 1."
        )
    if int(every) != every or every < 1:
        raise UserError(f"{field}: {value}; `every` is a whole number of updates, at least 1.")
    return _Part(round(start * num_steps), round(end * num_steps), int(every))
