"""Building blocks of systems."""
