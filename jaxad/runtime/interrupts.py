"""Signals that end a run: noted when they arrive, acted on where it is safe.

Python raises KeyboardInterrupt between any two instructions, also inside an import or inside a
callback of a library that swallows it. On the command line a signal therefore only sets a flag
(`handled`). Code that can stop polls it: `check` raises KeyboardInterrupt; training polls
`requested`, saves and returns (`saves_first`). A thread ends the process where nothing reacts in
time. That loses nothing: all files are written so that a process can be killed at any moment.

Imports nothing but the standard library, so that signals are handled before anything else loads.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

#: What the command line says when a signal has ended it.
MESSAGE = "interrupted; the same command goes on from what is saved."
#: The exit code of an interrupted command.
EXIT_CODE = 1

#: SIGHUP: the terminal was closed. Windows has none.
_SAVED_ON = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # fmt: skip
_HANDLED = (signal.SIGINT, *_SAVED_ON)
_REPEATED = tuple(number for number in _SAVED_ON if number != signal.SIGTERM)

#: Seconds until the process is ended where nothing reacts to a signal.
_GRACE_SECONDS = 3.0
#: Signals that arrive so soon after the first are the same one: schedulers signal a process and
#: its group.
_SAME_SECONDS = 0.2
#: Seconds after which a message says what a signal waits for.
_QUIET_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """A signal ended a training early; what was trained is saved."""


class _State:
    """What has arrived.

    Attributes:
        name: of the first signal, "" before.
        arrived: when it arrived, on the monotonic clock.
        since: when the grace period began.
        saving: how many blocks of `saves_first` are open.
        answered: whether the signal's work is done and the process is about to end.
        finished: whether the command is done and only the interpreter has to end.
        code: the exit code where the process is ended.
    """

    def __init__(self) -> None:
        self.name = ""
        self.arrived = self.since = 0.0
        self.saving = 0
        self.answered = False
        self.finished = False
        self.code = EXIT_CODE

    def note(self, number: int) -> None:
        if not self.name:
            self.arrived = self.since = time.monotonic()
            self.name = signal.Signals(number).name


_state = _State()
_watcher: "_Watcher | None" = None
_until_the_end = contextlib.ExitStack()
_temporary: set[Path] = set()


def requested() -> bool:
    """Whether a signal that ends the run has arrived."""
    return bool(_state.name)


def name() -> str:
    """The signal that arrived, such as `SIGTERM`; "" where none has."""
    return _state.name


def check() -> None:
    """Raises KeyboardInterrupt if a signal has arrived, unless the caller saves first.

    Call it where a long task may end: between files, batches, subjects or figures.
    """
    if _state.name and not _state.saving:
        raise KeyboardInterrupt


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP set a flag; for the command line alone.

    A second SIGINT or SIGTERM ends the process at once, and so does the first signal where nothing
    reacts to it within a few seconds. Signals that the caller's environment ignores (`nohup`,
    background jobs) stay ignored. Only the main thread can handle signals; in another one this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread() or _watcher is not None:
        yield
        return
    with contextlib.ExitStack() as stack:
        _handle(stack)
        yield


def install() -> None:
    """Handles signals as `handled` does, until the process ends; call it first in a process."""
    if _watcher is None:
        _handle(_until_the_end)
        atexit.register(_exit)  # the first that is registered is the last that runs


def _handle(stack: contextlib.ExitStack) -> None:
    global _watcher
    _reset()
    # Before the handlers, and closed after them, so that no signal falls between.
    _watcher = _Watcher()
    stack.callback(_close_watcher)
    stack.enter_context(_handlers(_HANDLED))


def _close_watcher() -> None:
    global _watcher
    if _watcher is not None:
        _watcher.close()
        _watcher = None
        _reset()


@contextlib.contextmanager
def saves_first(*, sets_handlers: bool = True) -> Iterator[None]:
    """Inside, the block polls `requested`, saves its work and returns: nothing else ends it.

    Without `handled` (a notebook, a script) SIGTERM and SIGHUP set the flag inside the block, and
    Ctrl-C raises KeyboardInterrupt as ever.

    Args:
        sets_handlers: whether to handle SIGTERM and SIGHUP without `handled`; False where somebody
            else does, as JAX does in one of several processes.
    """
    is_alone = _watcher is None and not _state.saving
    in_main_thread = threading.current_thread() is threading.main_thread()
    with contextlib.ExitStack() as stack:
        if is_alone and in_main_thread and sets_handlers:
            _reset()
            stack.callback(_reset)
            stack.enter_context(_handlers(_SAVED_ON))
        state = _state
        state.saving += 1
        try:
            yield
        finally:
            state.saving -= 1
            state.since = time.monotonic()


@contextlib.contextmanager
def removed_at_the_end(folder: Path) -> Iterator[None]:
    """Inside, the folder is removed if a signal ends the process without unwinding its blocks."""
    _temporary.add(folder)
    try:
        yield
    finally:
        _temporary.discard(folder)


def answer() -> None:
    """Says that the signal's work is done and the process is about to end by itself."""
    _state.answered = True


def finish(code: int, *, at_once: bool = True) -> None:
    """Ends the process with this code if a signal has arrived; call it when the command is done.

    A signal that arrives from now on does not change the exit code.

    Args:
        code: the exit code.
        at_once: whether an interrupted process ends here. Threads of libraries that a signal caught
            in the middle can make an ordinary end hang or crash; but one of several processes has
            to take leave of the others.
    """
    if _state.name and at_once:
        _flush()
        _leave(code)
    _state.finished, _state.code = True, code


def _exit() -> None:
    """Ends the process with its code, where there is one, before Python takes its handlers away.

    Nothing is left to do by then but the destructors of libraries, in which a signal would decide
    the exit code.
    """
    if _state.finished:
        _flush()
        os._exit(_state.code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed before the process began
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _reset() -> None:
    global _state
    _state = _State()


@contextlib.contextmanager
def _handlers(numbers: Sequence[int]) -> Iterator[None]:
    """Lets signals set the flag; those that are ignored stay ignored."""

    def note(number: int, frame: FrameType | None) -> None:
        if _watcher is None:  # else its thread has read the signal already, or is about to
            _state.note(number)

    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watcher:
    """A thread that reads signals as they arrive, also while the main thread is inside C code.

    The C handler of Python writes a signal's number to a pipe at once; the Python handler would
    have to wait for the main thread.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = (_above_streams(end) for end in os.pipe())
        os.set_blocking(self._write_end, False)
        self._before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="jaxad-signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops reading; signals that arrived before are noted."""
        signal.set_wakeup_fd(self._before)
        os.write(self._write_end, b"\0")  # no signal has number 0
        self._thread.join()
        os.close(self._read_end)
        os.close(self._write_end)

    def _watch(self) -> None:
        while number := os.read(self._read_end, 1)[0]:
            if number not in _HANDLED:
                continue
            if not _state.name:
                _state.note(number)
                threading.Thread(target=_enforce, args=(_state,), daemon=True).start()
            # A closing terminal sends SIGHUP more than once: that is never somebody's second try.
            elif number not in _REPEATED and time.monotonic() - _state.arrived > _SAME_SECONDS:
                _end_now(_state, f"{signal.Signals(number).name}: ended at once.")


def _above_streams(end: int) -> int:
    """The end of a pipe under a number that is no standard stream's, where these are closed."""
    if end > 2:
        return end
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(end)
    return moved


def _enforce(state: _State) -> None:
    """Ends the process where nothing reacts to a signal in time; says what training waits for."""
    is_explained = False
    while not state.answered and state is _state:
        waited = time.monotonic() - state.since
        if state.saving and waited > _QUIET_SECONDS and not is_explained:
            is_explained = True
            _write(
                f"{state.name}: stops and saves after the update under way; Ctrl-C or SIGTERM now "
                "ends it at once, without saving."
            )
        if not state.saving and waited > _GRACE_SECONDS:
            _end_now(state, MESSAGE)
        time.sleep(0.05)


def _end_now(state: _State, text: str) -> None:
    if not state.finished:
        _write(text)
    for folder in list(_temporary):
        shutil.rmtree(folder, ignore_errors=True)
    _leave(state.code)


def _leave(code: int) -> None:
    """Ends this process and asks its children to end: workers would wait for a while.

    Those that clean up behind the others ignore SIGTERM and end when this process has.
    """
    children = []
    for listing in Path("/proc/self/task").glob("*/children"):  # where the system has such files
        with contextlib.suppress(OSError):
            children += [int(child) for child in listing.read_text().split()]
    # Nothing in between: the main thread may wait for a child, and would go on once it has ended.
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGTERM)
    os._exit(code)


def _write(text: str) -> None:
    """Writes a line to stderr past Python's buffers, whose locks the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
