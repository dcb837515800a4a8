"""Settings of glibc's malloc: memory that a step has freed is kept for the next one.

XLA allocates the temporaries of a program in one block at every call. glibc gets so large a block
from the system each time and returns it, and the system clears every page again: up to a third of
the time of a step of FastFlow or AE-FLOW. glibc keeps smaller blocks by default, and then the
default is better: threads that share a heap wait for each other. See docs/performance.md.
"""

import ctypes
import os

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
#: Size up to which glibc keeps blocks by default (DEFAULT_MMAP_THRESHOLD_MAX in its malloc.c).
_LARGE_BYTES = 2**25
#: Bytes of training's temporaries for each pixel of a batch: 340 to 580 were measured
#: (`benchmarks/accelerator.py`).
_BYTES_PER_PIXEL = 400
#: Bytes to keep at the end of the heap: the largest int, which mallopt takes.
_KEPT_BYTES = 2**31 - 1
#: Least growth of the heap in bytes; pages that are not touched take no memory.
_GROWTH_BYTES = 2**26


def keep_freed_memory(pixels: int | None) -> bool:
    """Makes this process keep up to 2 GiB of freed memory instead of returning it to the system.

    Call it before JAX starts, as all threads then share one heap. Nothing is changed, and the
    result is False, if a device trains on few `pixels` at once (None if unknown), if
    `GLIBC_TUNABLES` has settings of malloc, or without glibc.
    """
    if pixels is not None and pixels * _BYTES_PER_PIXEL < _LARGE_BYTES:
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
    except (OSError, AttributeError, TypeError):
        return False
    library.mallopt(_ARENA_MAX, 1)  # other arenas always get large blocks from the system
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    library.mallopt(_TOP_PAD, _GROWTH_BYTES)
    return True
