"""TensorFlow on the CPU only, for the input pipeline and TensorBoard files."""

import functools
import os
from types import ModuleType


@functools.cache
def tensorflow() -> ModuleType:
    """Returns the tensorflow module; the first call imports it, which takes seconds.

    GPUs are hidden from it: it would reserve the memory that JAX is about to use.
    """
    # No messages at start-up; oneDNN has one and is not used.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
