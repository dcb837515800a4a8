"""Generated data: semi-synthetic brains from the ICBM152 template, and natural objects."""
