"""A context that hides the progress bars and notes of TensorFlow Datasets."""

import contextlib
import io
import logging
from collections.abc import Iterator

import tensorflow_datasets as tfds

from jaxad.runtime.messages import root_logger_kept


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def silent_tfds() -> Iterator[None]:
    """Hides the progress bars of TFDS, its log messages below errors, and its output.

    In notebooks it prints that data are being downloaded even if nothing is.
    """
    absl = logging.getLogger("absl")
    absl.addFilter(_is_error)
    # TFDS cannot tell whether bars are on, so that afterwards they are: its default.
    tfds.display_progress_bar(False)
    try:
        with root_logger_kept(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(True)
        absl.removeFilter(_is_error)
