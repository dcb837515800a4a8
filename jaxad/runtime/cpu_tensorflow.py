"""TensorFlow as a host library: the input pipeline and TensorBoard files, never the accelerator."""

import functools
import os
from types import ModuleType


@functools.cache
def tensorflow() -> ModuleType:
    """The tensorflow module, imported on first call (it takes seconds), accelerators hidden.

    TensorFlow would otherwise reserve the memory of every GPU that JAX is about to use.
    """
    # It would tell how it starts, and that it computes with oneDNN, which it does not here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
