"""Launches jaxad from a checkout; see `python launch.py --help`."""

import sys

from jaxad.cli import main

if __name__ == "__main__":
    sys.exit(main())
