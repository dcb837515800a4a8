"""An array that several processes fill: what they read need not be sent back through a pipe."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

#: Memory that looks like a folder, where a system has it.
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def shared_array(shape: Sequence[int], dtype: np.dtype) -> Iterator[np.memmap | None]:
    """An array of zeros in a temporary file; None where there is no room for it.

    The file is gone afterwards, the array stays as long as somebody holds it. Its place is taken
    page by page by those who fill it, so that there must be twice as much: a map of a file that
    cannot grow ends the process.
    """
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    folder = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    if shutil.disk_usage(folder).free < 2 * num_bytes:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="jaxad-", dir=folder) as made:
        yield np.memmap(Path(made) / "array", dtype=dtype, mode="w+", shape=tuple(shape))
