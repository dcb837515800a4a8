import subprocess
import sys


def test_keras_is_loaded_when_it_is_used_and_no_earlier():
    script = """
import sys
from jaxad.runtime.cpu_tensorflow import tensorflow
tf = tensorflow()
print(*{"keras", "sklearn", "pandas", "matplotlib"} & set(sys.modules))
print(float(tf.keras.activations.relu(-1.0)))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["", "0.0"]
