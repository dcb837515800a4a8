"""Data sets of the user's own files: which files there are, and how they are read."""
