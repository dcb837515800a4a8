"""TensorFlow Datasets (TFDS): its data folder, and splits of its data sets."""
