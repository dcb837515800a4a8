"""Launches jaxad from a checkout; see `python launch.py --help`."""

from jaxad.cli import launch

if __name__ == "__main__":
    launch()
