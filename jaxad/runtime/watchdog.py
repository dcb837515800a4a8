"""Warns, with a remedy, when the devices seem to hang."""

import collections
import contextlib
import logging
import statistics
import threading
import time
import weakref
from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: A result is late after this many times the usual wait and at least this many seconds.
_TIMES_USUAL, _LEAST_SECONDS = 20.0, 30.0
#: Seconds after which the first result is late; its usual wait is unknown.
_FIRST_SECONDS = 600.0
#: Number of waits whose median is the usual wait.
_REMEMBERED = 100
#: Seconds between two checks.
_PERIOD = 1.0


class Watchdog:
    """Watches waits for the devices, one at a time; warns with a remedy if a result does not come.

    Its thread starts with the first wait and ends with the object.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._waits: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        self._since: float | None = None
        self._reported: float | None = None
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Watches the block, which waits for the devices; warns if it takes too long."""
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
                logger.warning(f"warning: the devices resumed after {seconds:.0f} s.")
            self._waits.append(seconds)

    def _patience(self) -> float:
        """Returns the seconds after which a result is late."""
        if not self._waits:
            return _FIRST_SECONDS
        return max(_LEAST_SECONDS, _TIMES_USUAL * statistics.median(self._waits))

    def check(self) -> None:
        """Warns once if the current wait takes too long."""
        since = self._since
        if since is None or since == self._reported:
            return
        seconds = time.monotonic() - since
        if seconds > self._patience():
            self._reported = since
            usual = f" (usually {statistics.median(self._waits):.1f} s)" if self._waits else ""
            logger.warning(
                f"warning: no result from the devices for {seconds:.0f} s{usual}. {self._remedy}"
            )


def _watch(reference: "weakref.ref[Watchdog]") -> None:
    while (watchdog := reference()) is not None:
        watchdog.check()
        del watchdog  # the reference would keep it alive
        time.sleep(_PERIOD)
