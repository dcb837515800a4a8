"""Imports distrax where TensorFlow runs already.

distrax imports TensorFlow Probability, which, if it finds TensorFlow loaded, loads its Keras layers
as well and fails without tf_keras; nobody here needs those. While it is imported for the first time
it is shown an empty TensorFlow.
"""

import sys
from types import ModuleType

_loaded = sys.modules.get("tensorflow")
if _loaded is not None and "tensorflow_probability" not in sys.modules:
    sys.modules["tensorflow"] = ModuleType("tensorflow")
    try:
        import distrax  # noqa: F401
    finally:
        sys.modules["tensorflow"] = _loaded
