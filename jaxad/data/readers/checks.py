"""What every reader checks before it believes a file."""

import contextlib
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import DataError

#: The most that a file may become in memory. A damaged header can promise any size.
MOST_BYTES = 4 * 2**30


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
            f"{MOST_BYTES:,}; repair it or leave it out."
        )


@contextlib.contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a library raises on a damaged file into a DataError."""
    try:
        with warnings.catch_warnings():
            # A library that warns of damage goes on to read it, or raises.
            warnings.simplefilter("ignore")
            yield
    except (DataError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable or leave it out.") from error
    # Damaged bytes make decoders fail in every way (struct.error, IndexError, zlib.error, ...).
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: not a readable {kind} ({first_line[:200]}); copy it again or leave it out."
        ) from error
