"""Building blocks that know no system."""
