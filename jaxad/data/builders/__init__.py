"""Data sets as TensorFlow Datasets builders, one module each."""
