"""Data sets, preprocessing and the input pipeline. Never imports model code."""
