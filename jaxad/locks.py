"""Locks that processes of one machine hold against each other; a killed process leaves none."""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


def try_lock(file: IO[str]) -> bool:
    """Takes the lock on an open file; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def turn(
    path: Path, waiting: str, stop_requested: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Waits until no other process holds the lock; yields False when told to stop meanwhile.

    Args:
        path: of the lock's file, made if it is not there.
        waiting: what to tell where there is another process.
        stop_requested: tells whether to stop waiting.
    """
    with path.open("w") as file:
        held = try_lock(file)
        if not held:
            print(waiting, flush=True)
        while not held and not stop_requested():
            time.sleep(0.2)
            held = try_lock(file)
        yield held
