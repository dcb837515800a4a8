"""TensorFlow Datasets without its nested progress bars and its notes on every opening."""

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
    """Hides the progress bars of TFDS, what it logs below an error, and what it prints.

    In notebooks it prints that data are downloaded, which they are not.
    """
    absl = logging.getLogger("absl")
    absl.addFilter(_is_error)
    # TFDS can be told to show or to hide bars but not asked which it does; it shows by default.
    tfds.display_progress_bar(False)
    try:
        with root_logger_kept(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(True)
        absl.removeFilter(_is_error)
