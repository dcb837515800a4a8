"""Standard streams that survive a closed terminal and print characters that they cannot encode."""

import errno
import io
import sys
from typing import Any

#: Error numbers of writing to a closed terminal or pipe.
_CLOSED = (errno.EIO, errno.EPIPE)


class _UnbreakableFile(io.FileIO):
    """A file whose writes go nowhere once the other end is closed."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            return memoryview(data).nbytes


def ignore_closed_streams() -> None:
    """Replaces stdout and stderr, so that writing to a closed one is not an error.

    For the command line. A run continues and saves its work when its terminal is closed or the
    program that it is piped to (`head`) has ended.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the process started
            continue
        stream.flush()
        file = _UnbreakableFile(stream.fileno(), "w", closefd=False)
        replacement = io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering or name == "stderr",
            write_through=stream.write_through,  # `python -u` and PYTHONUNBUFFERED
        )
        setattr(sys, name, replacement)


def escape_unencodable() -> None:
    r"""Makes stdout and stderr print characters that they cannot encode as text such as `\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
