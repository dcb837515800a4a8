"""Which networks an update trains: alternating updates and stages, as the config schedules them.

The phase of an update is a function of its number alone, known to the host: every distinct phase is
a program of its own, compiled when it first comes, and a run that resumes is in the phase in which
an uninterrupted one would be.
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
    """From which update to which a network trains, and at every how many-th of these."""

    first: int
    last: int
    every: int

    def count(self, step: int) -> int:
        """Its updates among the first `step` of the run."""
        return max(0, min(step, self.last) - self.first) // self.every

    def is_at(self, step: int) -> bool:
        return self.count(step + 1) > self.count(step)


@dataclasses.dataclass(frozen=True)
class Phases:
    """The schedule of a run.

    Attributes:
        num_steps: updates in the run.
    """

    num_steps: int
    _parts: Mapping[str, _Part]

    @property
    def networks(self) -> Phase:
        """All networks."""
        return tuple(self._parts)

    def at(self, step: int) -> Phase:
        """The networks that update `step` (0-based) trains."""
        return tuple(name for name, part in self._parts.items() if part.is_at(step))

    def all_begun(self, step: int) -> bool:
        """Whether every network has been trained among the first `step` updates.

        Validation losses of before do not tell which state of the whole system is better.
        """
        return all(part.count(step) for part in self._parts.values())

    def count(self, network: str, step: int | None = None) -> int:
        """Updates of a network among the first `step` of the run; of the whole run by default."""
        return self._parts[network].count(self.num_steps if step is None else step)


def make_phases(
    schedule: ConfigDict | Mapping[str, Any], networks: Collection[str], num_steps: int
) -> Phases:
    """The schedule that `config.train.updates` describes.

    Args:
        schedule: network -> (start, end, every): it is trained from this part of the run to that
            one, both in [0, 1], at every so many-th update. A network that is not named is trained
            in every update.
        networks: of the system.
        num_steps: updates in the run.

    Raises:
        UserError: no such network, or a schedule that is none.
    """
    for name in schedule:
        if name not in networks:
            raise UserError(
                f"config.train.updates.{name}: this system has no such network; it has "
                f"{', '.join(networks)}."
            )
    parts = {name: _part(name, schedule.get(name, (0.0, 1.0, 1)), num_steps) for name in networks}
    return Phases(num_steps, parts)


def check_phases(phases: Phases) -> None:
    """Checks the schedule of a run whose number of updates is known.

    Raises:
        UserError: a network that is never trained, or an update that trains nothing.
    """
    num_steps = phases.num_steps
    for name in phases.networks:
        if not phases.count(name):
            raise UserError(
                f"config.train.updates.{name}: {num_steps} updates are too few to train "
                f"'{name}' even once; train longer or change its part of the run."
            )
    idle = next((step for step in range(num_steps) if not phases.at(step)), None)
    if idle is not None:
        raise UserError(
            f"config.train.updates: update {idle + 1} of {num_steps} would train no network; "
            "let the parts of the run meet, and one network train at every update of each."
        )


def dispatches(
    phases: Phases, start_step: int, size: int, boundaries: Sequence[int]
) -> Iterator[tuple[Phase, int]]:
    """How the updates from `start_step` on are sent to the devices, as (phase, how many at once).

    `size` at once where they are of one phase and no boundary falls between them, else one by one.
    Which updates go together is decided by their numbers alone, so that a run that resumes computes
    what an uninterrupted one does, in the same programs.

    Args:
        phases: of the run.
        start_step: updates done before.
        size: of a dispatch, at least 1.
        boundaries: after every so many updates the host has something to do.
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
        raise UserError(f"{field}: {value!r}; give (start, end, every), as (0.0, 0.5, 1).")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in value):
        raise UserError(f"{field}: {value}; give three numbers, as (0.0, 0.5, 1).")
    start, end, every = value
    if not 0 <= start < end <= 1:
        raise UserError(
            f"{field}: {value}; start and end are parts of the run, 0 <= start < end <= 1."
        )
    if int(every) != every or every < 1:
        raise UserError(f"{field}: {value}; `every` is a whole number of updates, at least 1.")
    return _Part(round(start * num_steps), round(end * num_steps), int(every))
