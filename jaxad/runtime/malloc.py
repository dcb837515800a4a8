"""What a step has freed is kept for the next one, where the C library is glibc.

XLA allocates the temporaries of a program in one piece at every call. glibc takes so large a piece
anew from the system each time and gives it back, and the system clears every page of it again: of
a step of FastFlow or AE-FLOW up to a third of its time. Smaller pieces glibc keeps by itself, and
there it is better let alone: threads that share a heap wait for each other. See
docs/performance.md.
"""

import ctypes
import os

# Of malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
#: Up to here glibc learns to keep pieces by itself (DEFAULT_MMAP_THRESHOLD_MAX of its malloc.c).
_LARGE_BYTES = 2**25
#: Temporaries of training per pixel of a batch: 340 to 580 (`benchmarks/accelerator.py`).
_BYTES_PER_PIXEL = 400
#: As much as mallopt can be told to keep at the heap's end; it takes an int.
_KEPT_BYTES = 2**31 - 1
#: What the heap grows by at least; pages that nobody touches take no memory.
_GROWTH_BYTES = 2**26


def keep_freed_memory(pixels: int | None) -> bool:
    """Lets this process keep what it frees, up to 2 GiB, rather than give it back to the system.

    Other threads get no heaps of their own any more, so that it belongs before JAX starts. What the
    user says of malloc in `GLIBC_TUNABLES` stays.

    Args:
        pixels: that a device learns from at once; where they are few, nothing is changed. None:
            not known.

    Returns:
        Whether the C library was told.
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
    library.mallopt(_ARENA_MAX, 1)  # of other arenas large pieces are the system's all the same
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    library.mallopt(_TOP_PAD, _GROWTH_BYTES)
    return True
