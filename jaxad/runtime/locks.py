"""File locks between processes; the system releases those of a process that ends."""

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
    """Locks an open file until it is closed; returns False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def wait_for_lock(path: Path, message: str) -> Iterator[None]:
    """Waits for a lock and holds it inside the block.

    The message is logged if another process holds the lock file, which is created if needed.

    Raises:
        KeyboardInterrupt: a signal arrived during the wait.
    """
    with path.open("w") as file:
        held = try_lock(file)
        if not held:
            logger.info(message)
        while not held:
            interrupts.check()
            time.sleep(0.2)
            held = try_lock(file)
        yield
