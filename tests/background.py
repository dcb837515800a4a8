"""Tests that send signals also run where a shell has started pytest in the background."""

import contextlib
import signal
from collections.abc import Iterator


def heed_signals() -> None:
    """Lets a new process heed what a shell ignores in background jobs; for `preexec_fn`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Inside, SIGINT raises KeyboardInterrupt in this process, as it does in the foreground."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
