"""Signals that end a run: each ends it in time, with its exit code, and the same command goes on.

    pytest -m long -n 0 -s tests/faults/test_signals.py

sends many signals at random moments and prints a line for each: when, to what, and what came of it.
`JAXAD_SIGNALS=200,100` sets how many SIGINT and SIGTERM.
"""

import collections
import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxad import interrupts

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch.py"
#: A signal is acted on within so many seconds: the grace period, and what a loaded machine needs.
IN_TIME = 5.0

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextlib.contextmanager
def script(body: str, *, before: str = "", **options):
    """A process that handles signals as the command line does, running `body`; it says `ready`.

    `body` sees `interrupts`, `sys` and `time`.
    """
    text = (
        f"import os, signal, sys, time\nsys.path.insert(0, {str(ROOT)!r})\n{before}\n"
        f"from jaxad import interrupts\ninterrupts.install()\nprint('ready', flush=True)\n{body}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text],
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
    """Exit code, stdout, stderr, and the seconds until the end."""
    start = time.monotonic()
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err, time.monotonic() - start


POLLS = """
try:
    while True:
        time.sleep(0.01)
        interrupts.check()
except KeyboardInterrupt:
    print(f"polled {interrupts.name()}")
    code = 1
interrupts.finish(code)
"""


@pytest.mark.parametrize("number", ENDING)
def test_what_polls_ends_by_itself(number):
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
def test_what_does_not_poll_is_ended(number, body):
    with script(body) as process:
        process.send_signal(number)
        code, _, err, seconds = ended(process)
    assert code == interrupts.EXIT_CODE
    assert err.strip() == interrupts.MESSAGE
    assert seconds > interrupts._GRACE_SECONDS - 0.5


SAVES = """
with interrupts.saves_first():
    while not interrupts.requested():
        time.sleep(0.01)
    time.sleep({seconds})
    print("saved", flush=True)
    interrupts.answer()
time.sleep(0.1)
interrupts.finish(0)
"""


@pytest.mark.parametrize("number", ENDING)
def test_what_saves_first_is_left_to_save(number):
    with script(SAVES.format(seconds=interrupts._GRACE_SECONDS + 1)) as process:
        process.send_signal(number)
        code, out, err, seconds = ended(process)
    assert (code, out) == (0, "saved\n")
    assert seconds > interrupts._GRACE_SECONDS
    assert f"{number.name}: stops and saves after the update under way; a second" in err


@pytest.mark.parametrize("second", ENDING)
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
        for _ in range(3):  # as a closed terminal does, or a scheduler that signals the group too
            process.send_signal(signal.SIGHUP)
        code, out, _, _ = ended(process)
    assert (code, out) == (0, "saved\n")


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
with interrupts.saves_first():
    while not interrupts.requested():
        print("working", flush=True)
        print("working", file=sys.stderr, flush=True)
        time.sleep(0.01)
    for _ in range(10): print("saving", flush=True)
    pathlib.Path({str(tmp_path / "saved")!r}).write_text(interrupts.name())
    interrupts.answer()
interrupts.finish(0)
"""
    text = (
        f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "os.open(sys.argv[1], os.O_RDWR)  # what a new session opens first is its terminal\n"
        "from jaxad import interrupts, streams; interrupts.install(); streams.outlast_readers()\n"
    )
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", text + body, os.ttyname(side)],
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
from jaxad import streams
streams.outlast_readers()
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


def test_without_the_command_line_signals_are_the_caller_s():
    before = [signal.getsignal(number) for number in ENDING]
    with interrupts.saves_first():
        assert signal.getsignal(signal.SIGINT) is before[0]
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested() and interrupts.name() == "SIGTERM"
        interrupts.check()  # the block saves: nothing is raised
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert [signal.getsignal(number) for number in ENDING] == before
    assert not interrupts.requested()


# --- Whole commands.

SIGNALS = [int(count) for count in os.environ.get("JAXAD_SIGNALS", "20,10").split(",")]
SMOKE = (
    "--config=pchvae:smoke",
    "--config.train.num_epochs=8",
    "--config.train.checkpoint_every_steps=7",
)


class Command:
    """A command that goes on in its folder each time it is started; what it makes is compared."""

    def __init__(self, name, arguments, results, make_folder, environment):
        self.name = name
        self._arguments, self._results = arguments, results
        self._make_folder, self._environment = make_folder, environment
        self.folder = make_folder()

    def start(self):
        return subprocess.Popen(
            [sys.executable, str(LAUNCH), *self._arguments(self.folder)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self):
        """Runs to the end; the results, as text."""
        process = self.start()
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        return [(self.folder / name).read_text() for name in self._results]

    def begin_anew(self):
        self.folder = self._make_folder()


def send(process, number: signal.Signals, to_group: bool):
    """Exit code, output and seconds to the end after a signal, as a terminal or `kill` sends it."""
    start = time.monotonic()
    if to_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err, time.monotonic() - start


def check_end(code: int, out: str, err: str, seconds: float, number: signal.Signals) -> str:
    """Whether a command ended as it should; in a word, how."""
    printed = out + err
    assert "Traceback" not in printed, printed
    if "saved step" in out:
        assert code == (1 if number == signal.SIGINT else 0), printed
        return "saved"
    if interrupts.MESSAGE in err:
        assert code == 1, printed
        assert seconds < IN_TIME, f"{seconds:.1f} s\n{printed}"
        return "interrupted"
    assert code == 0 and seconds < IN_TIME, printed  # it was about to end
    return "done"


@pytest.mark.long
def test_signals_at_random_moments(launch_environment, data_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    fit = [*SMOKE, f"--config.data.root={data_root}"]
    images = tmp_path_factory.mktemp("images") / "images.npz"
    _write_images(images, data_root)

    def new_folder():
        return tmp_path_factory.mktemp("command") / "out"

    commands = [
        Command(
            "fit", lambda folder: [*fit, f"--workdir={folder}"],
            ["eval/test_objects/scores.csv", "eval/test_lesions/scores.csv"],
            new_folder, launch_environment,
        ),
        Command(
            "score",
            lambda folder: [
                "--mode=score", f"--workdir={run}", f"--input={images}", f"--output={folder}",
            ],
            ["scores.csv", "patients.csv"], new_folder, launch_environment,
        ),
    ]  # fmt: skip
    trained = Command("fit", lambda folder: [*fit, f"--workdir={run}"], [], lambda: run,
                      launch_environment)  # fmt: skip
    trained.finish()
    expected, longest = {}, {}
    for command in commands:
        start = time.monotonic()
        expected[command.name] = command.finish()
        longest[command.name] = time.monotonic() - start
        command.begin_anew()
    rng = random.Random(0)
    numbers = [signal.SIGINT] * SIGNALS[0] + [signal.SIGTERM] * SIGNALS[1]
    rng.shuffle(numbers)
    ends: collections.Counter = collections.Counter()
    for count, number in enumerate(numbers, 1):
        command = rng.choice(commands)
        moment, to_group = rng.uniform(0.2, longest[command.name]), rng.random() < 0.5
        process = command.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        if process.poll() is None:
            end = send(process, number, to_group)
            how = check_end(*end, number)
            print(f"{count}: {command.name} {number.name} at {moment:.1f} s"
                  f"{' to the group' if to_group else ''}: {how} after {end[3]:.1f} s, "
                  f"exit code {end[0]}", flush=True)  # fmt: skip
        else:
            process.communicate()
            assert process.returncode == 0
            how = "had ended"
        ends[command.name, number.name, how] += 1
        if how in ("done", "had ended") or count % 10 == 0:
            assert command.finish() == expected[command.name]
            command.begin_anew()
    for command in commands:
        assert command.finish() == expected[command.name]
    print(dict(ends))


def _write_images(path: Path, data_root: Path) -> None:
    """The images of a test split, often enough for a score run of some seconds."""
    import numpy as np

    import jaxad

    config = jaxad.get_config("pchvae:smoke").unlock()
    config.data.root = str(data_root)
    split = jaxad.load_data(config).split("test_objects")
    count = 20
    np.savez(
        path,
        image=np.concatenate([split.images] * count),
        id=np.asarray([f"{number}-{name}" for number in range(count) for name in split.ids]),
        group=np.asarray([f"{number}-{name}" for number in range(count) for name in split.groups]),
    )
