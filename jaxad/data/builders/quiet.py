"""TensorFlow Datasets without its nested progress bars and its notes on every opening."""

import contextlib
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging


@contextlib.contextmanager
def silent_tfds() -> Iterator[None]:
    """Hides the progress bars of TFDS, and what it logs below an error."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    # TFDS can be told to show or to hide bars but not asked which it does; it shows by default.
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)
        logging.set_verbosity(verbosity)
