"""What Orbax and TensorStore raise when files fail, in a few words and once."""

import contextlib
import errno
import gc
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxad.errors import NO_ROOM, NOT_ALLOWED, first_line

#: What an array's file that is gone or lies on a bad disk ends in; other errors of the system (no
#: permission, too many open files) say nothing of the file.
LOST = (errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR)

#: How long Orbax's other tasks go on after one of them failed.
_ECHO_SECONDS = 0.5


class _Silence:
    """Drops errors that Orbax and TensorStore report late, beside the one that they raised.

    One hook and one filter for all blocks of this process, which may overlap.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._hook = sys.unraisablehook

    def begin(self) -> None:
        self._blocks += 1
        if self._blocks == 1:
            self._hook = sys.unraisablehook
            sys.unraisablehook = self._pass_on
            logging.getLogger("asyncio").addFilter(self._is_no_echo)

    def end(self) -> None:
        self._blocks -= 1
        if not self._blocks:
            sys.unraisablehook = self._hook
            logging.getLogger("asyncio").removeFilter(self._is_no_echo)

    def _pass_on(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._hook(unraisable)

    def _is_no_echo(self, record: logging.LogRecord) -> bool:
        is_late = "exception was never retrieved" in record.getMessage()
        return not (is_late and record.exc_info and _is_of_storage(record.exc_info[1]))


_silence = _Silence()


@contextlib.contextmanager
def without_echoes() -> Iterator[None]:
    """Reports an error of a failed read or write once: Orbax's other tasks fail later, in logs.

    After an error of the block the rest stays silent for good: it may come when the process ends.
    """
    _silence.begin()
    yield
    _silence.end()


def _is_of_storage(error: BaseException | None) -> bool:
    """Whether an error is of TensorStore, or passed through Orbax."""
    if error is None:
        return False
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return "tensorstore_spec" in str(error) or any("orbax" in Path(name).parts for name in files)


def await_echoes() -> None:
    """Lets the other tasks of a failed read or write end, while their errors are dropped."""
    time.sleep(_ECHO_SECONDS)
    gc.collect()


def error_number(error: Exception) -> int | None:
    """Of the system's error, also where TensorStore tells it in words."""
    told = re.search(r"os_error_code='(\d+)'", str(error))
    return int(told[1]) if told is not None else getattr(error, "errno", None)


def find_error_number(error: Exception) -> int | None:
    """Of the system's error behind one of TensorFlow or TFDS, which may tell it in words alone."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__ or cause.__context__
    numbers = (*NO_ROOM, *NOT_ALLOWED, *LOST)
    return next((number for number in numbers if os.strerror(number) in str(error)), None)


def remedy(number: int | None) -> str:
    """What lets a run go on whose files could not be written; the sentence may be continued."""
    if number in NOT_ALLOWED:
        return "Make the folder writable, and the same command goes on"
    return "Once the disk takes more, the same command goes on"


def reason(error: Exception) -> str:
    """Why, in a few words: TensorStore's messages run to pages."""
    number = error_number(error)
    if number is not None:
        return os.strerror(number)
    return first_line(error).partition(" [tensorstore_spec")[0].rpartition('": ')[2][:200]
