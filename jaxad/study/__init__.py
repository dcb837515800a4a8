"""Studies: many runs on the same data, each experiment with each seed, compared in one table."""
