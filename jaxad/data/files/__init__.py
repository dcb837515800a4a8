"""Data sets that are a user's files: folders, tables and arrays."""
