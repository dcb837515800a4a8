"""TensorFlow as a host library: the input pipeline and TensorBoard files, never the accelerator."""

import functools
from types import ModuleType


@functools.cache
def tensorflow() -> ModuleType:
    """The tensorflow module, imported on first call (it takes seconds), accelerators hidden.

    TensorFlow would otherwise reserve the memory of every GPU that JAX is about to use.
    """
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
