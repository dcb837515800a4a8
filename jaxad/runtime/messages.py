"""Messages of the package on the command line: plain lines on stdout and stderr.

Every module logs to a logger below `jaxad`. In a notebook or another program nothing is configured:
Python shows warnings by default, and the program decides about the rest.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator

_LOGGER = logging.getLogger("jaxad")


class _Printer(logging.Handler):
    """Prints warnings and errors to `sys.stderr`, everything else to `sys.stdout`."""

    def __init__(self, rewrite: Callable[[str], str]):
        super().__init__()
        self._rewrite = rewrite

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(self._rewrite(record.getMessage()), file=stream, flush=True)


@contextlib.contextmanager
def printed(rewrite: Callable[[str], str] = str) -> Iterator[None]:
    """Prints messages from level INFO inside the block, without time and level; blocks may nest.

    `rewrite` changes each message before it is printed.
    """
    level, propagates, handlers = _LOGGER.level, _LOGGER.propagate, list(_LOGGER.handlers)
    if not any(isinstance(handler, _Printer) for handler in handlers):
        _LOGGER.addHandler(_Printer(rewrite))
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False  # absl and TensorFlow give the root logger handlers of their own
    try:
        yield
    finally:
        _LOGGER.handlers[:] = handlers
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagates


def root_logger_kept() -> contextlib.ExitStack:
    """Keeps absl from adding a handler to the root logger until the returned block ends.

    absl adds one at the first record of a library if the root logger has none. Inside, the handler
    that Python uses by default stands in. A block that is still open when the process ends stays
    open: a generator would be ended after the modules that it needs.
    """
    root, handler, block = logging.getLogger(), logging.lastResort, contextlib.ExitStack()
    if not root.handlers and handler is not None:
        root.addHandler(handler)
        block.callback(root.removeHandler, handler)
    return block


def quiet_libraries() -> None:
    """Silences the start-up lines of TensorFlow and XLA, in workers too.

    Call it before either is imported. They log errors (`E0000 ...`) for libraries of GPUs that are
    loaded twice; an error that matters is raised as well. The user's own setting is kept.
    """
    # Level 2 still prints errors; importing JAX sets 1.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it has a line of its own, and is not used
    # Joblib warns on import if there are no semaphores; jaxad does when it would need them.
    warnings.filterwarnings("ignore", ".*joblib will operate in serial mode", UserWarning)


@contextlib.contextmanager
def without_details(package: str) -> Iterator[None]:
    """Leaves out the messages of a package's modules below WARNING inside the block."""
    logger = logging.getLogger(package)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def print_warnings_only() -> None:
    """Prints only warnings and errors from now on; the first process prints the rest."""
    _LOGGER.setLevel(logging.WARNING)
