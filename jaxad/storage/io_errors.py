"""File errors of Orbax, TensorStore, and TensorFlow: reasons, remedies, and late reports."""

import contextlib
import errno
import gc
import logging
import os
import re
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from jaxad.errors import NO_ROOM, NOT_ALLOWED, first_line
from jaxad.runtime.messages import root_logger_kept

#: Error numbers of a file that is missing or lies on a bad disk. Others (no permission, too many
#: open files) do not tell whether the file is damaged.
LOST = (errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR)

#: Seconds for which Orbax's other tasks continue after one of them failed.
_LATE_SECONDS = 0.5


class _LateErrors:
    """Drops Orbax's log, and the errors that its other tasks report after the one that was raised.

    One hook and one pair of filters for all blocks of the process, which may overlap.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._hook = sys.unraisablehook
        self._root_logger = contextlib.ExitStack()

    def __enter__(self) -> None:
        self._blocks += 1
        if self._blocks == 1:
            self._hook = sys.unraisablehook
            sys.unraisablehook = self._filter_unraisable
            logging.getLogger("asyncio").addFilter(_is_not_late_error)
            logging.getLogger("absl").addFilter(_is_not_from_orbax)
            self._root_logger.enter_context(root_logger_kept())

    def __exit__(self, *error: object) -> None:
        self._blocks -= 1
        if not self._blocks:
            self._root_logger.close()
            sys.unraisablehook = self._hook
            logging.getLogger("asyncio").removeFilter(_is_not_late_error)
            logging.getLogger("absl").removeFilter(_is_not_from_orbax)

    def _filter_unraisable(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._hook(unraisable)


_late_errors = _LateErrors()


def drop_late_errors() -> None:
    """From now on, reports an error of a failed save or read only once; for the command line.

    Some late errors come when the process ends.
    """
    _late_errors.__enter__()


def late_errors_dropped() -> contextlib.AbstractContextManager[None]:
    """Reports an error of a failed save or read only once, inside the block."""
    return _late_errors


def await_late_errors() -> None:
    """Waits until the other tasks of a failed save or read have ended."""
    time.sleep(_LATE_SECONDS)
    gc.collect()


def _is_not_late_error(record: logging.LogRecord) -> bool:
    """Filters out what asyncio logs of failed tasks of Orbax and TensorStore."""
    is_late = "exception was never retrieved" in record.getMessage()
    return not (is_late and record.exc_info and _is_from_storage(record.exc_info[1]))


def _is_from_storage(error: BaseException | None) -> bool:
    """Tells whether an error is TensorStore's or was raised through Orbax."""
    if error is None:
        return False
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return "tensorstore_spec" in str(error) or any("orbax" in Path(name).parts for name in files)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    """Filters out Orbax's log: the phases of every save, defaults, and errors that it raises too.

    Records of absl name absl's own file as their origin, so the callers are inspected.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if "orbax" in frame.f_globals.get("__name__", "").split("."):
            return False
        frame = frame.f_back
    return True


def error_number(error: Exception) -> int | None:
    """Returns the errno of an error of the system or of TensorStore; None for other errors."""
    match = re.search(r"os_error_code='(\d+)'", str(error))
    return int(match[1]) if match is not None else getattr(error, "errno", None)


def find_error_number(error: Exception) -> int | None:
    """Returns the errno behind an error of TensorFlow or TFDS; None if there is none.

    Searches the chain of causes, then the message, which may have only the text of the errno.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__ or cause.__context__
    numbers = (*NO_ROOM, *NOT_ALLOWED, *LOST)
    return next((number for number in numbers if os.strerror(number) in str(error)), None)


def remedy(number: int | None) -> str:
    """Returns a sentence, without a full stop, on what to do about files that cannot be written."""
    if number in NOT_ALLOWED:
        return "Make the folder writable, then run the same command to resume"
    return "Once the disk accepts more data, run the same command to resume"


def reason(error: Exception) -> str:
    """Returns the reason of an error in a few words; TensorStore's messages are pages long."""
    number = error_number(error)
    if number is not None:
        return os.strerror(number)
    return first_line(error).partition(" [tensorstore_spec")[0].rpartition('": ')[2][:200]
