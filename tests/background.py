"""Tests that send signals also run where a shell has started pytest in the background."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence

_HEED = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def heeding_signals(command: Sequence[str]) -> list[str]:
    """A command that heeds the signals which a shell ignores in background jobs."""
    return [sys.executable, "-c", _HEED, *command]


@contextlib.contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Inside, SIGINT and SIGHUP act on this process as they do in the foreground."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
