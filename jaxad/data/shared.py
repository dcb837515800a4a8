"""An array that several processes fill: what they read need not be sent back through a pipe."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

#: Memory that looks like a folder, where a system has it.
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def shared_array(shape: Sequence[int], dtype: np.dtype) -> Iterator[np.memmap | None]:
    """An array of zeros in a temporary file; None where there is no room for it.

    The file is gone afterwards, the array stays as long as somebody holds it. Its place is taken at
    once: a map of a file that cannot grow would end the process.
    """
    places = [_MEMORY] if os.access(_MEMORY, os.W_OK) else []
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    with contextlib.ExitStack() as stack:
        room = None
        for place in (*places, Path(tempfile.gettempdir())):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxad-", dir=place))
            path = Path(folder) / "array"
            if room is None and _take(path, num_bytes):
                room = np.memmap(path, dtype=dtype, mode="r+", shape=tuple(shape))
        yield room


def _take(path: Path, num_bytes: int) -> bool:
    """Makes a file of zeros of this size, if there is room and the system can promise it."""
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
    except (OSError, AttributeError):
        return False
    return True
