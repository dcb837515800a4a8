"""Evaluation: metrics with intervals, trivial scores to compare with, and their files."""
