"""File errors of libraries: their error numbers, remedies, and late reports."""

import errno
import logging
import os
import sys

import pytest

from jaxad.storage import io_errors

WRITE_FAILED = (
    'Failed to finalize writing of split "train": write() failed: {}; writing /data/icbm_synth/'
    "incomplete.X_1.0.0/train.array_record-00000-of-00001; at byte 20000"
)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_the_error_number_is_found_in_a_message_of_array_record(number):
    error = RuntimeError(WRITE_FAILED.format(os.strerror(number)))
    assert io_errors.find_error_number(error) == number


def test_the_error_number_is_found_in_the_cause_of_an_error():
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("the split failed") from error
    except RuntimeError as error:
        assert io_errors.find_error_number(error) == errno.ENOSPC


@pytest.mark.parametrize("error", [RuntimeError("shape (3,)"), ValueError(""), OSError("gone")])
def test_other_errors_have_no_number(error):
    assert io_errors.find_error_number(error) is None


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Once the disk accepts more data, run the same command to resume"),
        (None, "Once the disk accepts more data, run the same command to resume"),
        (errno.EACCES, "Make the folder writable, then run the same command to resume"),
        (errno.EROFS, "Make the folder writable, then run the same command to resume"),
    ],
)  # fmt: skip
def test_remedies(number, remedy):
    assert io_errors.remedy(number) == remedy


def never_retrieved(error):
    """Tells whether asyncio would log an error of a task that was not awaited."""
    record = logging.LogRecord(
        "asyncio", logging.ERROR, "", 0, "Future exception was never retrieved", (),
        (type(error), error, error.__traceback__),
    )  # fmt: skip
    return logging.getLogger("asyncio").filter(record)


STORAGE = ValueError("RESOURCE_EXHAUSTED: Error writing [tensorstore_spec='{}']")


def state():
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    return sys.unraisablehook, [list(logger.filters) for logger in loggers]


def test_late_errors_of_storage_are_dropped_inside_the_block_and_no_others():
    before = state()
    with pytest.raises(OSError), io_errors.late_errors_dropped(), io_errors.late_errors_dropped():
        assert not never_retrieved(STORAGE)
        assert never_retrieved(ValueError("of the user's own task"))
        raise OSError("full")
    assert never_retrieved(STORAGE)
    assert state() == before
