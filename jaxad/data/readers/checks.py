"""What every reader checks before it believes a file."""

import contextlib
import logging
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import DataError, first_line

#: The most that a file may become in memory. A damaged header can promise any size.
MOST_BYTES = 4 * 2**30

# They tell of damage in lines of their own, which do not name the file, and go on or raise.
for _library in ("nibabel.global", "pydicom", "tifffile"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


def check_file(path: Path) -> int:
    """The size in bytes of a regular file that is not empty.

    Raises:
        DataError: there is none, it is something else (a pipe would wait for ever), or empty.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; restore it or leave it out.") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it readable or leave it out.") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is no regular file; leave it out.")
    if not status.st_size:
        raise DataError(f"{path}: is empty (0 bytes); copy it again or leave it out.")
    return status.st_size


def check_memory(path: Path, num_bytes: int) -> None:
    """Raises a DataError where a header promises more than `MOST_BYTES`."""
    if not 0 < num_bytes <= MOST_BYTES:
        raise DataError(
            f"{path}: its header promises {num_bytes:,} bytes, the most that is read is "
            f"{MOST_BYTES:,}; repair it, save it smaller or leave it out."
        )


class _Silence:
    """No warnings while any thread is within: `catch_warnings` knows no threads.

    Of two whose readings overlap, one would give the other's filters back, and the last would
    leave them off for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_silence = _Silence()


@contextlib.contextmanager
def readable(
    path: Path, kind: str, remedy: str = "copy it again or leave it out"
) -> Iterator[None]:
    """Turns whatever a library raises on a damaged file into a DataError."""
    try:
        # A library that warns of damage goes on to read it, or raises.
        with _silence:
            yield
    except (DataError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable or leave it out.") from error
    # Damaged bytes make decoders fail in every way (struct.error, IndexError, zlib.error, ...).
    except Exception as error:
        line = first_line(error)
        raise DataError(
            f"{path}: not a readable {kind} ({line[:200].rstrip('.')}); {remedy}."
        ) from error
