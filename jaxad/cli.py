"""The command line: exit codes, error lines and signals.

Signals are handled before anything else is imported, so that none arrives amid an import.
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
from jaxad.runtime.streams import outlast_readers, print_any_text
from jaxad.storage import io_errors


def _system_error(error: OSError) -> tuple[str, int] | None:
    """What to tell of the system's error and the exit code; None where it is a bug of ours."""
    where = "" if error.filename is None else f"'{error.filename}': "
    if error.errno in NO_ROOM:
        where = where or "a file, or where this command prints: "
        remedy = "what was saved is whole; once the disk takes more, the same command goes on."
        return f"failed: {where}{error.strerror}; {remedy}", 1
    if error.errno in NOT_ALLOWED:
        return f"error: {where}{error.strerror}; change that, or name another folder.", 2
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 (the run failed or was interrupted) or 2 (the user's mistake).
    """
    print_any_text()
    program = Path(sys.argv[0]).name if sys.argv[0].endswith(".py") else "jaxad"
    program = f"python {program}" if program.endswith(".py") else program
    with interrupts.handled(), messages.printed():
        return _exit_code(sys.argv[1:] if arguments is None else arguments, program)


def _exit_code(arguments: Sequence[str], program: str) -> int:
    """Runs a command and reports what ends it early in one line."""
    try:
        from jaxad import command

        return command.run(arguments, program)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(interrupts.MESSAGE, file=sys.stderr)
        code = interrupts.EXIT_CODE
    except Exception as error:
        known = _system_error(error) if isinstance(error, OSError) else None
        if known is not None:
            line, code = known
            print(line, file=sys.stderr)
        elif interrupts.requested() and isinstance(error, concurrent.futures.BrokenExecutor):
            # The signal also reached the workers, whose end is the error.
            print(interrupts.MESSAGE, file=sys.stderr)
            code = interrupts.EXIT_CODE
        else:
            # Raised again once the other processes know, which must not wait for this one.
            _end_unexpected(error)
            raise
    processes.leave(code)
    return code


def launch() -> NoReturn:
    """Runs the command line of this process and ends the process with its exit code."""
    interrupts.install()
    outlast_readers()
    io_errors.drop_late_errors()
    # What cleans up behind an interrupted pool of workers would say at length that it does.
    filters = os.environ.get("PYTHONWARNINGS", "")
    os.environ["PYTHONWARNINGS"] = f"{filters},ignore:resource_tracker:UserWarning".lstrip(",")
    code = main()
    interrupts.finish(code, at_once=not processes.are_several())
    sys.exit(code)


#: What a sum or a gathering over devices says when another process is gone.
_LOST_PROCESS = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "heartbeat")


def _end_unexpected(error: Exception) -> None:
    """Ends one of several processes with an error that nobody expected, as the loss of another."""
    if not processes.are_several():
        return
    if any(word in str(error) for word in _LOST_PROCESS):
        reason = first_line(error)[:200]
        print(
            f"failed: the devices do not answer ({reason}): another process has ended, or the "
            "network failed; see what the others say, then start all again.",
            file=sys.stderr,
        )
    else:
        traceback.print_exc()
    processes.leave(1)
