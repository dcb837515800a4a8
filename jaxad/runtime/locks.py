"""Locks that processes of one machine hold against each other; a killed process leaves none."""

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxad.runtime import interrupts

logger = logging.getLogger(__name__)


def try_lock(file: IO[str]) -> bool:
    """Takes the lock on an open file; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def wait_for_lock(path: Path, waiting: str) -> Iterator[None]:
    """Waits until no other process holds the lock, and holds it inside.

    Args:
        path: of the lock's file, made if it is not there.
        waiting: what to print where another process holds it.
    """
    with path.open("w") as file:
        held = try_lock(file)
        if not held:
            logger.info(waiting)
        while not held:
            interrupts.check()
            time.sleep(0.2)
            held = try_lock(file)
        yield
