"""Says when the devices seem to hang: in one line, with what to try."""

import collections
import contextlib
import logging
import statistics
import threading
import time
import weakref
from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: A result is late after so many times the usual wait, and no sooner than after so many seconds.
_TIMES_USUAL, _LEAST_SECONDS = 20.0, 30.0
#: Seconds after which the first result is late, whose usual time nobody knows.
_FIRST_SECONDS = 600.0
#: Waits that the usual one is the median of.
_REMEMBERED = 100
#: Seconds between two looks at the clock.
_PERIOD = 1.0


class Watchdog:
    """Watches one wait at a time; its thread lives from the first wait on, as long as the object.

    Args:
        remedy: what to try when a result does not come, as a sentence.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._waits: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        self._since: float | None = None
        self._reported: float | None = None
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wraps a wait for the devices; one that takes too long is reported on stderr."""
        if self._thread is None:
            arguments = (weakref.ref(self),)
            self._thread = threading.Thread(
                target=_watch, args=arguments, name="jaxad-watchdog", daemon=True
            )
            self._thread.start()
        start = self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None
            seconds = time.monotonic() - start
            if self._reported == start:
                _say(f"the devices went on after {seconds:.0f} s.")
            self._waits.append(seconds)

    def _patience(self) -> float:
        """Seconds after which a result is late."""
        if not self._waits:
            return _FIRST_SECONDS
        return max(_LEAST_SECONDS, _TIMES_USUAL * statistics.median(self._waits))

    def look(self) -> None:
        """Reports the wait under way if it takes too long, once."""
        since = self._since
        if since is None or since == self._reported:
            return
        seconds = time.monotonic() - since
        if seconds > self._patience():
            self._reported = since
            usual = f" (usually {statistics.median(self._waits):.1f} s)" if self._waits else ""
            _say(f"no result of the devices for {seconds:.0f} s{usual}. {self._remedy}")


def _watch(reference: "weakref.ref[Watchdog]") -> None:
    while (watchdog := reference()) is not None:
        watchdog.look()
        del watchdog  # or it would never be collected
        time.sleep(_PERIOD)


def _say(text: str) -> None:
    logger.warning(f"warning: {text}")
