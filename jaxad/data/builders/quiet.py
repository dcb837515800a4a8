"""TensorFlow Datasets without its nested progress bars."""

import contextlib
from collections.abc import Iterator

import tensorflow_datasets as tfds


@contextlib.contextmanager
def silent_tfds() -> Iterator[None]:
    """Hides the progress bars of TFDS."""
    # TFDS can be told to show or to hide them but not asked which it does; it shows by default.
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)
