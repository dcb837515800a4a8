"""Detectors: a run's checkpoint or an exported file, ready to score images."""
