"""The input pipeline: augmented batches as a pure function of the step."""
