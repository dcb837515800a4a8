"""The entry point of the command line: exit codes, error lines, and signals.

Signals are handled before the slow imports, so that none interrupts an import.
"""

import concurrent.futures
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxad.errors import NO_ROOM, NOT_ALLOWED, RunError, UserError, first_line
from jaxad.runtime import interrupts, messages, processes
from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.runtime.streams import escape_unencodable, ignore_closed_streams
from jaxad.storage import io_errors, paths


def _system_error(error: OSError) -> tuple[str, int] | None:
    """Returns a line and an exit code for a full disk or a missing permission; None otherwise."""
    where = "" if error.filename is None else f"'{paths.show(str(error.filename))}': "
    if error.errno in NO_ROOM:
        where = where or "a file, or the output of this command: "
        line = (
            f"failed: {where}{error.strerror}; what was saved is intact; once the disk accepts "
            "more data, run the same command to resume."
        )
        return line, 1
    if error.errno in NOT_ALLOWED:
        return f"error: {where}{error.strerror}; change that, or choose another folder.", 2
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: the arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 (the run failed or was interrupted), or 2 (a mistake in the command).
    """
    escape_unencodable()
    program = Path(sys.argv[0]).name if sys.argv[0].endswith(".py") else "jaxad"
    program = f"python {program}" if program.endswith(".py") else program
    with interrupts.handled(), messages.printed(paths.show):
        return _exit_code(sys.argv[1:] if arguments is None else arguments, program)


def _exit_code(arguments: Sequence[str], program: str) -> int:
    """Runs a command; an error that ends it becomes one line and an exit code."""
    try:
        from jaxad import command

        return command.run(arguments, program)
    except UserError as error:
        print(f"error: {paths.show(str(error))}", file=sys.stderr)
        code = 2
    except RunError as error:
        print(f"failed: {paths.show(str(error))}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(interrupts.MESSAGE, file=sys.stderr)
        code = interrupts.EXIT_CODE
    except Exception as error:  # those of the system and of workers get a line, others are raised
        known = _system_error(error) if isinstance(error, OSError) else None
        if known is not None:
            line, code = known
            print(line, file=sys.stderr)
        elif interrupts.requested() and isinstance(error, concurrent.futures.BrokenExecutor):
            # The signal also ended the workers, which is the error.
            print(interrupts.MESSAGE, file=sys.stderr)
            code = interrupts.EXIT_CODE
        else:
            # With several processes this exits: the others must not wait for this one.
            _end_unexpected(error)
            raise
    processes.leave(code)
    return code


def launch() -> NoReturn:
    """Runs the command line of this process and ends the process with its exit code.

    The process may start again from its beginning (`restart_with_huge_pages`).
    """
    restart_with_huge_pages()
    interrupts.install()
    ignore_closed_streams()
    io_errors.drop_late_errors()
    messages.quiet_libraries()
    # Python's resource tracker would print warnings after an interrupted pool of workers.
    filters = os.environ.get("PYTHONWARNINGS", "")
    os.environ["PYTHONWARNINGS"] = f"{filters},ignore:resource_tracker:UserWarning".lstrip(",")
    code = main()
    interrupts.finish(code, at_once=not processes.are_several())
    sys.exit(code)


#: Words in the error of a collective whose other processes are gone.
_LOST_PROCESS = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "heartbeat")


def _end_unexpected(error: Exception) -> None:
    """Ends one of several processes after an unexpected error; returns for a single process."""
    if not processes.are_several():
        return
    if any(word in str(error) for word in _LOST_PROCESS):
        reason = first_line(error)[:200]
        print(
            f"failed: the devices do not answer ({reason}): another process has ended, or the "
            "network failed; see the output of the others, then start all again.",
            file=sys.stderr,
        )
    else:
        traceback.print_exc()
    processes.leave(1)
