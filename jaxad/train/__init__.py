"""Training: optimiser, state, the one step, the loop, and what the loop writes."""
