"""TensorFlow on the CPU only, for the input pipeline and TensorBoard files."""

import functools
from types import ModuleType

from jaxad.runtime.messages import quiet_libraries


@functools.cache
def tensorflow() -> ModuleType:
    """Returns the tensorflow module; the first call imports it, which takes seconds.

    GPUs are hidden from it: it would reserve the memory that JAX is about to use.
    """
    quiet_libraries()
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
