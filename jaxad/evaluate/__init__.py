"""Evaluation: metrics with intervals, reference scores to compare with, and their files."""
