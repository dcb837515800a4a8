"""Progress of long tasks: a bar in a terminal or a notebook; elsewhere a plain line now and then.

Bars are redrawn with carriage returns, which make a log file unreadable.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

#: Seconds between two lines.
LINE_SECONDS = 30.0


def can_redraw() -> bool:
    """Tells whether stderr is a terminal or that of a notebook, which can redraw a bar."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return is_terminal or "ipykernel" in sys.modules


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Returns a `tqdm.tqdm` with these options, or a stand-in that logs lines."""
    if options.get("disable") or can_redraw():
        return tqdm(iterable, dynamic_ncols=True, **options)
    return _Lines(iterable, **options)


def time_of_day() -> str:
    """Returns the local date and time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Returns a duration such as `45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun that takes an s: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


class _Lines:
    """Stands in for a bar and logs a line every `LINE_SECONDS`; a short task logs none."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        *,
        total: int | None = None,
        initial: int = 0,
        desc: str = "",
        unit: str = "it",
        **_: Any,
    ) -> None:
        self.n = initial
        self._iterable, self._initial, self._description, self._unit = (
            iterable, initial, desc, unit
        )  # fmt: skip
        self._total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self._start = self._logged = time.monotonic()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable or ():
            yield item
            self.update()

    def close(self) -> None:
        """Does nothing: a line is complete once it is logged."""

    def update(self, count: int = 1) -> None:
        """Adds to what is done; logs a line if the last one is old."""
        self.n += count
        now = time.monotonic()
        if now - self._logged < LINE_SECONDS:
            return
        self._logged = now
        rate = (self.n - self._initial) / (now - self._start)
        total, left = "", ""
        if self._total is not None:
            total = f" of {self._total:,}"
            left = f", {duration((self._total - self.n) / rate)} left" if rate else ""
        logger.info(
            f"{time_of_day()} {self._description}: {self.n:,}{total} {self._unit}s, "
            f"{rate:.3g} per second{left}"
        )
