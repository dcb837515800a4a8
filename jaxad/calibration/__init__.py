"""Decisions from the scores of normal images: p-values and thresholds with a guarantee."""
