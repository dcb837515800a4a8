"""Processes that share work on many files or subjects, where the system lets there be any."""

import contextlib
import functools
import logging
import multiprocessing
import tempfile
from collections.abc import Iterator

import joblib

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def parallel(num_workers: int | None = None, *, few: bool = False) -> Iterator[joblib.Parallel]:
    """Yields joblib's workers, whose results come in order, as a generator.

    Args:
        num_workers: how many; all cores by default.
        few: whether the tasks take less time than the start of processes: threads do them.
            Where there can be no processes this thread does all, which a line on stderr says once:
            joblib's threads need semaphores, too.
    """
    can_share = can_start_processes()
    count = (num_workers or joblib.cpu_count()) if can_share else 1
    in_threads = few or not can_share
    limits = {} if in_threads else {"inner_max_num_threads": 1}
    with joblib.parallel_config("threading" if in_threads else "loky", n_jobs=count, **limits):
        yield joblib.Parallel(return_as="generator", batch_size=1, pre_dispatch="3 * n_jobs")


@functools.cache
def can_start_processes() -> bool:
    """Whether joblib can start processes: they need semaphores and a folder for temporary files.

    Some containers have no /dev/shm, or one that is full or read only.
    """
    try:
        multiprocessing.get_context("fork").Lock()
        tempfile.TemporaryFile().close()
    # ImportError: this Python was built without semaphores.
    except (OSError, ImportError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        logger.warning(
            f"note: no processes can share work on data here ({reason}); one does it, which takes "
            "longer. Give the container a writable /dev/shm and a folder for temporary files "
            "(TMPDIR)."
        )
        return False
    return True
