"""Augmented batches as a pure function of the step."""
