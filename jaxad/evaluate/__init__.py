"""Evaluation: metrics with intervals, trivial scores to compare with, and the files they go to."""
