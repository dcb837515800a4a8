"""An array that several processes fill: what they read need not be sent back through a pipe."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxad.runtime import interrupts

#: Memory that looks like a folder, where a system has it.
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def shared_array(shape: Sequence[int], dtype: np.dtype) -> Iterator[np.memmap | None]:
    """An array in a temporary file; None where there is no room for it.

    Who writes rows takes their place first. The file is gone afterwards, the array stays as long as
    somebody holds it.
    """
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    with contextlib.ExitStack() as stack:
        array = None
        for place in _places() if hasattr(os, "posix_fallocate") else ():
            try:
                if shutil.disk_usage(place).free < num_bytes:
                    continue
                folder = tempfile.TemporaryDirectory(prefix="jaxad-", dir=place)
                path = Path(stack.enter_context(folder)) / "array"
                stack.enter_context(interrupts.removed_at_the_end(path.parent))
                array = np.memmap(path, dtype=dtype, mode="w+", shape=tuple(shape))
                break
            except OSError:  # full, or not to be written after all
                continue
        yield array


def _places() -> list[Path]:
    """Folders for an array that is soon gone, the fastest first."""
    places = [_MEMORY] if os.access(_MEMORY, os.W_OK) else []
    with contextlib.suppress(FileNotFoundError):  # none can be written
        places.append(Path(tempfile.gettempdir()))
    return places


def take_place(array: np.memmap, start: int, count: int) -> bool:
    """Takes the place of rows in the file of a shared array; False where there is none left.

    Writing where there is none would end the process. Each process takes its own: the system
    fills it with zeros first, which takes a while.
    """
    row = array.nbytes // len(array)
    try:
        with Path(array.filename or "").open("r+b") as file:
            os.posix_fallocate(file.fileno(), array.offset + start * row, count * row)
    except OSError:
        return False
    return True
