"""Imports distrax in a process that has already loaded TensorFlow.

distrax imports TensorFlow Probability. If TensorFlow is loaded, that also loads its Keras layers,
which fails without tf_keras and which nothing here needs. During its first import an empty module
therefore takes the place of TensorFlow.
"""

import importlib
import sys
from types import ModuleType

_loaded = sys.modules.get("tensorflow")
if _loaded is not None and "tensorflow_probability" not in sys.modules:
    sys.modules["tensorflow"] = ModuleType("tensorflow")
    try:
        importlib.import_module("distrax")
    finally:
        sys.modules["tensorflow"] = _loaded
