"""Signals that end a command (SIGINT, SIGTERM, SIGHUP): noted on arrival, acted on at safe points.

By default Python raises KeyboardInterrupt between any two instructions: in the middle of an import,
or in a callback of a library that swallows it. On the command line (`install`, `handled`) a signal
therefore only sets a flag, and code polls it at safe points:

- `check` raises KeyboardInterrupt; long tasks call it between files, batches, or figures.
- A block of `deferred` polls `requested` instead, saves its work, and returns; training does.

A watcher thread ends the process a few seconds after a signal if nothing has reacted, and at once
on a second signal. Nothing is lost: all files are written so that the process can be killed at any
moment. In a notebook or a script only `deferred` handles signals, and restores the handlers.

This module imports only the standard library, so that signals are handled before the slow imports.
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

#: The line that the command line prints when a signal has ended it.
MESSAGE = "interrupted; run the same command to resume from what is saved."
#: The exit code of an interrupted command.
EXIT_CODE = 1

#: Signals that training answers with a save, also in notebooks. SIGHUP: the terminal was closed;
#: Windows has none.
_SAVED_ON = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # fmt: skip
_HANDLED = (signal.SIGINT, *_SAVED_ON)
#: Signals that never count as the second one: a closing terminal sends several.
_REPEATED = tuple(number for number in _SAVED_ON if number != signal.SIGTERM)

#: Seconds after which the watcher ends the process if nothing reacts to a signal.
_GRACE_SECONDS = 3.0
#: Signals that arrive this soon after the first count as the same one: schedulers signal a process
#: and its group.
_SAME_SECONDS = 0.2
#: Seconds after which a message tells what a signal waits for.
_QUIET_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """Raised when a signal ended training early and a checkpoint was saved."""


class _State:
    """The state of signal handling; times are on the monotonic clock."""

    name = ""  # of the first signal that arrived
    arrived = 0.0  # time of its arrival
    since = 0.0  # time when the grace period began
    deferring = 0  # number of open `deferred` blocks
    acknowledged = False  # the work is saved and the process is about to end by itself
    finished = False  # the command is done and only the interpreter has to end
    code = EXIT_CODE  # when the process is ended from here

    def note(self, number: int) -> None:
        if not self.name:
            self.arrived = self.since = time.monotonic()
            self.name = signal.Signals(number).name


_state = _State()
_watcher: "_Watcher | None" = None
_until_the_end = contextlib.ExitStack()
_temporary: set[Path] = set()


def requested() -> bool:
    """Tells whether a signal has arrived."""
    return bool(_state.name)


def signal_name() -> str:
    """Returns the name of the signal that arrived, such as `SIGTERM`; "" if none has."""
    return _state.name


def check() -> None:
    """Raises KeyboardInterrupt if a signal has arrived; does nothing in a `deferred` block.

    Long tasks call it where they may end: between files, batches, subjects, or figures.
    """
    if _state.name and not _state.deferring:
        raise KeyboardInterrupt


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Makes SIGINT, SIGTERM, and SIGHUP only set the flag, inside the block; for the command line.

    The process ends at once on a second SIGINT or SIGTERM, and a few seconds after the first signal
    if nothing reacts. Signals that are ignored (`nohup`, background jobs) stay ignored. Only the
    main thread can handle signals; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or _watcher is not None:
        yield
        return
    with contextlib.ExitStack() as stack:
        _handle(stack)
        yield


def install() -> None:
    """Handles signals as `handled` does until the process ends; call it first in a process."""
    if _watcher is None:
        _handle(_until_the_end)
        atexit.register(_exit)  # registered first, it runs last


def _handle(stack: contextlib.ExitStack) -> None:
    global _watcher
    _reset()
    # Opened before the handlers and closed after them, so that no signal falls between.
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
def deferred(*, sets_handlers: bool = True) -> Iterator[None]:
    """Defers the effect of signals: the block polls `requested`, saves its work, and returns.

    Inside, `check` raises nothing and the watcher does not end the process on the first signal.
    Without `handled` (in a notebook or a script), SIGTERM and SIGHUP set the flag inside the block,
    and Ctrl-C raises KeyboardInterrupt as usual. `sets_handlers` is false if another library
    handles these signals, as JAX in one of several processes.
    """
    is_outermost = _watcher is None and not _state.deferring
    in_main_thread = threading.current_thread() is threading.main_thread()
    with contextlib.ExitStack() as stack:
        if is_outermost and in_main_thread and sets_handlers:
            _reset()
            stack.callback(_reset)
            stack.enter_context(_handlers(_SAVED_ON))
        state = _state
        state.deferring += 1
        try:
            yield
        finally:
            state.deferring -= 1
            state.since = time.monotonic()


@contextlib.contextmanager
def removed_at_the_end(folder: Path) -> Iterator[None]:
    """Deletes the folder if a signal ends the process inside the block without unwinding it.

    A block that is still open when the command ends counts as one that was not unwound.
    """
    _temporary.add(folder)
    try:
        yield
    finally:
        _temporary.discard(folder)


def acknowledge() -> None:
    """Tells the watcher that the work is saved and the process is about to end by itself."""
    _state.acknowledged = True


def finish(code: int, *, at_once: bool = True) -> None:
    """Ends the process with this code if a signal has arrived; call it when the command is done.

    From now on, signals do not change the exit code. With `at_once`, an interrupted process ends
    here: threads of libraries that were interrupted can make an ordinary exit hang or crash. But
    one of several processes needs an ordinary exit, to disconnect from the others.
    """
    if _state.name and at_once:
        _flush()
        _leave(code)
    _state.finished, _state.code = True, code


def _exit() -> None:
    """Ends a finished process with its exit code, before Python restores the signal handlers.

    Only destructors of libraries are left to run, in which a signal would change the exit code.
    """
    if _state.finished:
        _flush()
        os._exit(_state.code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed before the process started
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _reset() -> None:
    global _state
    _state = _State()


@contextlib.contextmanager
def _handlers(numbers: Sequence[int]) -> Iterator[None]:
    """Makes signals set the flag inside the block.

    Ignored signals stay ignored, and handlers of C code stay in place: Python could not restore
    them.
    """

    def note(number: int, frame: FrameType | None) -> None:
        if _watcher is None:  # otherwise its thread reads the signal
            _state.note(number)

    taken = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watcher:
    """A thread that reads signals when they arrive, even while the main thread runs C code.

    It reads a pipe (`signal.set_wakeup_fd`), to which Python's C handler writes the number of a
    signal at once; handlers in Python have to wait for the main thread.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = (_above_streams(end) for end in os.pipe())
        os.set_blocking(self._write_end, False)
        self._before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="jaxad-signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread after the signals that have arrived are noted."""
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
            elif number not in _REPEATED and time.monotonic() - _state.arrived > _SAME_SECONDS:
                _end_now(_state, f"{signal.Signals(number).name}: ended at once.")


def _above_streams(end: int) -> int:
    """Duplicates a file descriptor to 3 or above: the standard streams may be closed."""
    if end > 2:
        return end
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(end)
    return moved


def _enforce(state: _State) -> None:
    """Ends the process if nothing reacts to a signal in time; prints what training waits for."""
    is_explained = False
    while not state.acknowledged and state is _state:
        waited = time.monotonic() - state.since
        if state.deferring and waited > _QUIET_SECONDS and not is_explained:
            is_explained = True
            _write(
                f"{state.name}: stops and saves after the current update; Ctrl-C or SIGTERM now "
                "ends it at once, without saving."
            )
        if not state.deferring and waited > _GRACE_SECONDS:
            _end_now(state, MESSAGE)
        time.sleep(0.05)


def _end_now(state: _State, text: str) -> None:
    """Ends the process from the watcher's threads: no block is unwound."""
    if not state.finished:
        _write(text)
    _leave(state.code)


def _leave(code: int) -> None:
    """Ends this process and its children, which would otherwise keep running for a while.

    Python's resource tracker ignores SIGTERM and ends after this process.
    """
    for folder in list(_temporary):
        shutil.rmtree(folder, ignore_errors=True)
    children = []
    for listing in Path("/proc/self/task").glob("*/children"):  # Linux only
        with contextlib.suppress(OSError):
            children += [int(child) for child in listing.read_text().split()]
    # Exit right after: the main thread may wait for a child, and would continue once it has ended.
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGTERM)
    os._exit(code)


def _write(text: str) -> None:
    """Writes a line to stderr, bypassing Python's buffers: the main thread may hold their locks."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
