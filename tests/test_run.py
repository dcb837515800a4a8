"""What the modes import."""

import subprocess
import sys


def test_training_waits_for_no_import_that_only_other_modes_or_data_need():
    script = """
import sys
from jaxad import config, run
from jaxad.config.model import make_model
for name in ("pchvae:smoke", "fastflow:smoke"):
    make_model(config.get_config(name))
print(*sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    heavy = {
        # evaluation and reports
        "sklearn", "scipy.stats", "matplotlib", "pandas", "jinja2",
        # readers of some files, and of data sets of TensorFlow Datasets
        "nibabel", "pydicom", "tensorflow", "tensorflow_datasets", "keras",
    }  # fmt: skip
    assert {"jax", "flax", "distrax", "orbax.checkpoint"} <= loaded and not heavy & loaded
