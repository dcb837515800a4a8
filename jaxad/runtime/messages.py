"""Messages of the package on the command line: plain lines on stdout and stderr.

Every module logs to a logger below `jaxad`. Python shows warnings by default and nothing else;
another program decides for itself what it does with them.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

_LOGGER = logging.getLogger("jaxad")


class _Printer(logging.Handler):
    """Prints warnings and errors to stderr and everything else to stdout, as it is then."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(record.getMessage(), file=stream, flush=True)


@contextlib.contextmanager
def printed() -> Iterator[None]:
    """Prints the package's messages from INFO on inside the block, without time and level."""
    if any(isinstance(handler, _Printer) for handler in _LOGGER.handlers):
        yield  # an outer block prints them already
        return
    level, propagates, printer = _LOGGER.level, _LOGGER.propagate, _Printer()
    _LOGGER.addHandler(printer)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False  # absl and TensorFlow give the root logger handlers of their own
    try:
        yield
    finally:
        _LOGGER.removeHandler(printer)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagates


def print_warnings_only() -> None:
    """Prints nothing below a warning from now on: one of several processes says the rest."""
    _LOGGER.setLevel(logging.WARNING)
