"""Imports distrax without TensorFlow.

distrax imports TensorFlow Probability, which takes docstrings from TensorFlow if it can; that takes
seconds and is not needed. If TensorFlow is loaded already, it also loads Keras layers, which fails
without tf_keras. During the first import an empty module therefore takes the place of TensorFlow.
Afterwards TensorFlow Probability is forgotten, except for its version for JAX: an import by other
code finds the real TensorFlow.
"""

import importlib
import sys
from types import ModuleType

if "tensorflow_probability" not in sys.modules:
    _loaded = sys.modules.get("tensorflow")
    sys.modules["tensorflow"] = ModuleType("tensorflow")
    try:
        importlib.import_module("distrax")
    finally:
        del sys.modules["tensorflow"]
        if _loaded is not None:
            sys.modules["tensorflow"] = _loaded
        for _name in list(sys.modules):
            _is_for_jax = _name.startswith("tensorflow_probability.substrates")
            if _name.partition(".")[0] == "tensorflow_probability" and not _is_for_jax:
                del sys.modules[_name]
