"""TensorFlow Datasets: where it keeps data, and how its data sets become splits."""
