"""Checks that every reader makes before it trusts a file."""

import contextlib
import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import DataError, first_line

#: The largest size in memory of a file's pixels. A damaged header can promise any size.
MAX_BYTES = 4 * 2**30

#: Names that operating systems and archives leave beside files; a leading dot hides others.
_SYSTEM_NAMES = frozenset(
    (
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle",
        "$recycle.bin", "system volume information", "lost+found", "__pycache__", "icon\r",
    )
)  # fmt: skip

# These libraries log damage without naming the file, and then continue or raise.
for _library in ("nibabel.global", "pydicom", "tifffile"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


def is_hidden(name: str) -> bool:
    """Tells whether a file or folder of this name is never data, such as `._x.png`."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def check_file(path: Path) -> int:
    """Returns the size in bytes of a regular file.

    Raises:
        DataError: the file is missing, unreadable, empty, or not a regular file (reading a pipe
            would block).
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; restore it or leave it out.") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it readable or leave it out.") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file; leave it out.")
    if not status.st_size:
        raise DataError(f"{path}: is empty (0 bytes); copy it again or leave it out.")
    return status.st_size


def check_memory(path: Path, num_bytes: int) -> None:
    """Raises a DataError if a header promises no bytes or more than `MAX_BYTES`."""
    if not 0 < num_bytes <= MAX_BYTES:
        raise DataError(
            f"{path}: its header promises {num_bytes:,} bytes, but the limit is {MAX_BYTES:,}; "
            "repair it, save it smaller or leave it out."
        )


class _Silence:
    """Suppresses warnings while at least one thread is inside.

    `warnings.catch_warnings` is not thread-safe: if two of its blocks overlap, the first to end
    restores the filters for both, and the second leaves warnings off for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._num_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                self._caught.__exit__(None, None, None)


_silence = _Silence()


@contextlib.contextmanager
def readable(
    path: Path, kind: str, remedy: str = "copy it again or leave it out"
) -> Iterator[None]:
    """Turns any exception that a library raises on a damaged file into a DataError."""
    try:
        with _silence:
            yield
    except (DataError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable or leave it out.") from error
    except Exception as error:  # decoders raise anything: struct.error, IndexError, zlib.error, ...
        # Pillow shows the open file, which the message names anyway.
        reason = re.sub(r"\s*<_io\..*>", "", first_line(error))[:200].rstrip(".")
        raise DataError(f"{path}: not a readable {kind} ({reason}); {remedy}.") from error
