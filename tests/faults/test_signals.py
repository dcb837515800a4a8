"""Signals that end a run, in small processes; `test_random_signals.py` sends them to commands."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from background import heeding_interrupts, heeding_signals

from jaxad.runtime import interrupts

ROOT = Path(__file__).parent.parent.parent
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

#: Of the processes that are started here; conftest.py changes it in this one.
GRACE_SECONDS = interrupts._GRACE_SECONDS


@contextlib.contextmanager
def script(body: str, *, before: str = "", **options):
    """Runs `body` in a process that handles signals like the command line and prints `ready`.

    `body` sees `interrupts`, `sys` and `time`.
    """
    text = (
        f"import os, signal, sys, time\nsys.path.insert(0, {str(ROOT)!r})\n{before}\n"
        "from jaxad.runtime import interrupts\ninterrupts.install()\n"
        f"print('ready', flush=True)\n{body}\n"
    )
    process = subprocess.Popen(
        heeding_signals([sys.executable, "-c", text]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            stream.close()


def ended(process, seconds: float = 30) -> tuple[int, str, str, float]:
    """Returns exit code, stdout, stderr, and the seconds to the end."""
    start = time.monotonic()
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err, time.monotonic() - start


POLLS = """
try:
    while True:
        time.sleep(0.01)
        interrupts.check()
except KeyboardInterrupt:
    print(f"polled {interrupts.signal_name()}")
    code = 1
interrupts.finish(code)
"""


@pytest.mark.parametrize("number", ENDING)
def test_code_that_polls_ends_by_itself(number):
    with script(POLLS) as process:
        process.send_signal(number)
        code, out, err, _ = ended(process)
    assert (code, out, err) == (1, f"polled {number.name}\n", "")


# What swallows an exception of Python's own handler, or is torn by it.
SWALLOWS = {
    "a callback of the garbage collector": """
import gc
def callback(phase, info): time.sleep(0.005)
gc.callbacks.append(callback)
end = time.monotonic() + 1
while time.monotonic() < end: gc.collect()
gc.callbacks.clear()
""",
    "a finaliser": """
class Finalised:
    def __del__(self): time.sleep(0.005)
end = time.monotonic() + 1
while time.monotonic() < end: Finalised()
""",
    "an import": """
import importlib
end = time.monotonic() + 1
while time.monotonic() < end:
    sys.modules.pop("decimal", None), sys.modules.pop("_pydecimal", None)
    importlib.import_module("_pydecimal")
""",
    "a broad except": """
end = time.monotonic() + 1
while time.monotonic() < end:
    try: time.sleep(0.01)
    except BaseException: pass
""",
}


@pytest.mark.parametrize("what", SWALLOWS)
def test_no_signal_is_swallowed_and_nothing_is_torn(what):
    with script(SWALLOWS[what] + POLLS) as process:
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        code, out, err, _ = ended(process)
    assert (code, out, err) == (1, "polled SIGINT\n", "")


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "import subprocess; subprocess.run(['sleep', '60'])",
    ],
    ids=["computing", "waiting for a lock", "waiting for a process"],
)
def test_code_that_does_not_poll_is_ended(number, body):
    with script(body) as process:
        process.send_signal(number)
        code, _, err, seconds = ended(process)
    assert code == interrupts.EXIT_CODE
    assert err.strip() == interrupts.MESSAGE
    assert seconds > GRACE_SECONDS - 0.5


SAVES = """
with interrupts.deferred():
    while not interrupts.requested():
        time.sleep(0.01)
    time.sleep({seconds})
    print("saved", flush=True)
    interrupts.acknowledge()
time.sleep(0.1)
interrupts.finish(0)
"""


@pytest.mark.parametrize("number", ENDING)
def test_a_deferred_block_is_left_to_save(number):
    with script(SAVES.format(seconds=GRACE_SECONDS + 1)) as process:
        process.send_signal(number)
        code, out, err, seconds = ended(process)
    assert (code, out) == (0, "saved\n")
    assert seconds > GRACE_SECONDS
    assert f"{number.name}: stops and saves after the current update; Ctrl-C or SIGTERM" in err


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(second):
    with script(SAVES.format(seconds=60)) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(second)
        code, out, err, _ = ended(process)
    assert (code, out) == (1, "")
    assert err.strip() == f"{second.name}: ended at once."


def test_the_same_signal_sent_twice_at_once_is_one():
    with script(SAVES.format(seconds=0.5)) as process:
        for _ in range(3):  # as a scheduler does that signals the group too
            process.send_signal(signal.SIGTERM)
        code, out, _, _ = ended(process)
    assert (code, out) == (0, "saved\n")


@pytest.mark.parametrize("first", ENDING)
def test_sighup_is_never_the_second_signal(first):
    with script(SAVES.format(seconds=1.5)) as process:
        process.send_signal(first)
        for _ in range(2):  # as the shell and the kernel do when a terminal is closed
            time.sleep(0.4)
            process.send_signal(signal.SIGHUP)
        code, out, _, _ = ended(process)
    assert (code, out) == (0, "saved\n")


def test_temporary_folders_are_deleted_with_a_process_that_is_ended(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    body = f"""
import pathlib
with interrupts.deferred(), interrupts.removed_at_the_end(pathlib.Path({str(folder)!r})):
    time.sleep(60)
"""
    with script(body) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 1
    assert not folder.exists()


@pytest.mark.parametrize("number", ENDING)
def test_an_ignored_signal_stays_ignored(number):
    ignore = f"signal.signal({int(number)}, signal.SIG_IGN)"  # as nohup does
    with script(POLLS, before=ignore) as process:
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
        other = signal.SIGTERM if number != signal.SIGTERM else signal.SIGINT
        process.send_signal(other)
        assert ended(process)[:2] == (1, f"polled {other.name}\n")


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_after_the_command_is_done_does_not_change_its_exit_code(number):
    body = "import atexit; atexit.register(lambda: (print('end', flush=True), time.sleep(0.5)))"
    with script(f"{body}\ninterrupts.finish(2)\nsys.exit(2)") as process:
        assert process.stdout.readline() == "end\n"
        process.send_signal(number)
        assert ended(process)[:3] == (2, "", "")


def test_a_closed_terminal_does_not_keep_a_run_from_saving(tmp_path):
    body = f"""
import pathlib
with interrupts.deferred():
    while not interrupts.requested():
        print("working", flush=True)
        print("working", file=sys.stderr, flush=True)
        time.sleep(0.01)
    for _ in range(10): print("saving", flush=True)
    pathlib.Path({str(tmp_path / "saved")!r}).write_text(interrupts.signal_name())
    interrupts.acknowledge()
interrupts.finish(0)
"""
    text = (
        f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "os.open(sys.argv[1], os.O_RDWR)  # what a new session opens first is its terminal\n"
        "from jaxad.runtime import interrupts, streams\n"
        "interrupts.install(); streams.ignore_closed_streams()\n"
    )
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        heeding_signals([sys.executable, "-c", text + body, os.ttyname(side)]),
        stdin=side, stdout=side, stderr=side, start_new_session=True,
    )  # fmt: skip
    os.close(side)
    assert b"working" in os.read(terminal, 100)
    os.close(terminal)
    assert process.wait(30) == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_pipe_does_not_end_a_run(stream, tmp_path):
    body = f"""
import pathlib
from jaxad.runtime import streams
streams.ignore_closed_streams()
for _ in range(100):
    print("x" * 1000, file=sys.{stream}, flush=True)
    time.sleep(0.01)
pathlib.Path({str(tmp_path / "done")!r}).touch()
interrupts.finish(0)
sys.exit(0)
"""
    with script(body) as process:
        getattr(process, stream).close()
        assert process.wait(30) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_printed_lines_survive_a_kill(unbuffered):
    body = """
from jaxad.runtime import streams
streams.ignore_closed_streams()
print("said", file=sys.stderr)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with script(body, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}) as process:
        assert ended(process)[2] == "said\n"


def test_a_stream_that_was_closed_before_the_start_is_no_error():
    command = f"exec {sys.executable} {ROOT / 'launch.py'} --help >&-"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_without_the_command_line_signals_belong_to_the_caller():
    with heeding_interrupts():
        check_callers_signals()


def check_callers_signals():
    before = [signal.getsignal(number) for number in ENDING]
    with interrupts.deferred():
        assert signal.getsignal(signal.SIGINT) is before[0]
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested() and interrupts.signal_name() == "SIGTERM"
        interrupts.check()  # the block saves: nothing is raised
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert [signal.getsignal(number) for number in ENDING] == before
    assert not interrupts.requested()
