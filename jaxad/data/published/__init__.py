"""Published data sets as TensorFlow Datasets builders, one module each."""
