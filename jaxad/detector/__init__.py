"""A trained run or an exported file, ready to score: one restore and one score function."""
