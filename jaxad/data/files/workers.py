"""Processes that share work on many files or subjects, and an array in memory that they share."""

import contextlib
import functools
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np

from jaxad.runtime import interrupts

logger = logging.getLogger(__name__)

#: A folder whose files lie in memory, on systems that have one.
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def parallel(num_workers: int | None = None, *, few: bool = False) -> Iterator[joblib.Parallel]:
    """Yields joblib workers that return a generator of results in the order of the tasks.

    With `few`, threads do the tasks, which take less time than starting processes.
    """
    can_share = can_start_processes()
    count = (num_workers or joblib.cpu_count()) if can_share else 1  # threads need semaphores, too
    in_threads = few or not can_share
    limits = {} if in_threads else {"inner_max_num_threads": 1}
    with joblib.parallel_config("threading" if in_threads else "loky", n_jobs=count, **limits):
        yield joblib.Parallel(return_as="generator", batch_size=1, pre_dispatch="3 * n_jobs")


@functools.cache
def can_start_processes() -> bool:
    """Tells whether joblib can start processes; logs once if it cannot.

    Processes need semaphores and a folder for temporary files. Some containers have no /dev/shm,
    or one that is full or read-only.
    """
    try:
        multiprocessing.get_context("fork").Lock()
        tempfile.TemporaryFile().close()
    # ImportError: this Python was built without semaphores.
    except (OSError, ImportError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        logger.warning(
            f"note: data are read by one process, which is slow, because no others can be started "
            f"({reason}). Give the container a writable /dev/shm and a folder for temporary files "
            "(TMPDIR)."
        )
        return False
    return True


@contextlib.contextmanager
def shared_array(shape: Sequence[int], dtype: np.dtype) -> Iterator[np.memmap | None]:
    """Yields an array in a temporary file that processes can fill; None if there is no room.

    Writers call `reserve` for their rows first. The file is removed at the end, and the array
    stays valid as long as it is referenced.
    """
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    with contextlib.ExitStack() as stack:
        array = None
        for folder in _folders() if hasattr(os, "posix_fallocate") else ():
            try:
                if shutil.disk_usage(folder).free < num_bytes:
                    continue
                temporary = tempfile.TemporaryDirectory(prefix="jaxad-", dir=folder)
                path = Path(stack.enter_context(temporary)) / "array"
                stack.enter_context(interrupts.removed_at_the_end(path.parent))
                array = np.memmap(path, dtype=dtype, mode="w+", shape=tuple(shape))
                break
            except OSError:  # full, or not writable
                continue
        yield array


def _folders() -> list[Path]:
    """Returns folders for a temporary array, the fastest first."""
    folders = [_MEMORY] if os.access(_MEMORY, os.W_OK) else []
    with contextlib.suppress(FileNotFoundError):  # no folder is writable
        folders.append(Path(tempfile.gettempdir()))
    return folders


def reserve(array: np.memmap, start: int, count: int) -> bool:
    """Allocates the memory of rows of a shared array; returns False if there is none left.

    Writing to memory that cannot be allocated would kill the process. Each process reserves its
    own rows: the system fills them with zeros, which takes a while.
    """
    row = array.nbytes // len(array)
    try:
        with Path(array.filename or "").open("r+b") as file:
            os.posix_fallocate(file.fileno(), array.offset + start * row, count * row)
    except OSError:
        return False
    return True
