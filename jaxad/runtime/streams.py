"""Standard streams that end no run, whether their reader is gone or their encoding is poor."""

import errno
import io
import sys
from typing import Any

#: What writing to a terminal or a pipe that is closed ends in.
_CLOSED = (errno.EIO, errno.EPIPE)


class _Lasting(io.FileIO):
    """A file whose writes go nowhere once the other end is closed."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            return memoryview(data).nbytes


def outlast_readers() -> None:
    """Replaces stdout and stderr of this process; for the command line alone.

    A training that was started in a terminal, or whose output is piped to `head`, goes on and saves
    its work when its reader is gone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the process began
            continue
        stream.flush()
        file = _Lasting(stream.fileno(), "w", closefd=False)
        lasting = io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering or name == "stderr",
            write_through=stream.write_through,  # as `python -u` and PYTHONUNBUFFERED want it
        )
        setattr(sys, name, lasting)


def print_any_text() -> None:
    r"""Lets stdout and stderr print what their encoding lacks as `\xfc`, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
