"""Imports distrax without TensorFlow.

distrax imports TensorFlow Probability, which takes docstrings from TensorFlow if it can: seconds
for nothing. If TensorFlow is loaded already, it also loads Keras layers, which fails without
tf_keras. During the first import an empty module therefore takes the place of TensorFlow.
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
