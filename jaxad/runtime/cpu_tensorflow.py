"""TensorFlow on the CPU only, for the input pipeline and TensorBoard files."""

import functools
import sys
from types import ModuleType

from jaxad.runtime.messages import quiet_libraries


@functools.cache
def tensorflow() -> ModuleType:
    """Returns the tensorflow module; the first call imports it, which takes seconds.

    GPUs are hidden from it: it would reserve the memory that JAX is about to use.
    """
    quiet_libraries()
    tf = _import_tensorflow()
    tf.config.set_visible_devices([], "GPU")
    return tf


def _import_tensorflow() -> ModuleType:
    """Imports TensorFlow without Keras, which `tf.keras` still imports when it is used.

    Keras loads scikit-learn, pandas, Matplotlib and IPython, and takes as long as TensorFlow
    itself, which tries to load it early and goes on without it.
    """
    hides_keras = not {"keras", "tensorflow"} & sys.modules.keys()
    if hides_keras:
        sys.modules["keras.src"] = None  # type: ignore[assignment]  # importing it fails
    try:
        import tensorflow as tf
    finally:
        if hides_keras:
            sys.modules.pop("keras.src", None)
    return tf
