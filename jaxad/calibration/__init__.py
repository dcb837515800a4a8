"""Calibration on normal images: p-values and thresholds with a guaranteed false-positive rate."""
