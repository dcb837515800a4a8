"""Messages: plain lines on the command line; in a notebook nothing of the caller is changed."""

import logging
import subprocess
import sys

import pytest

from jaxad.runtime import messages


def test_messages_are_plain_lines_and_warnings_go_to_stderr(capsys):
    logging.getLogger("jaxad.train").info("100 % of it")
    logging.getLogger("jaxad.train").warning("warning: look")
    logging.getLogger("jaxad.train").debug("details")
    logging.getLogger("another.package").info("not ours")
    assert capsys.readouterr() == ("100 % of it\n", "warning: look\n")


def test_only_the_first_process_prints_more_than_warnings(capsys):
    with messages.printed():
        messages.print_warnings_only()
        logging.getLogger("jaxad").info("a result")
        logging.getLogger("jaxad").warning("a warning")
    assert capsys.readouterr() == ("", "a warning\n")
    assert logging.getLogger("jaxad").level == logging.INFO  # as before


CALLER = """
import logging, os, signal, sys, threading
import tqdm

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

def stop(number, frame):
    raise SystemExit

for number in SIGNALS[1:]:
    signal.signal(number, stop)

def state():
    loggers = [logging.getLogger(name) for name in ("", "absl", "asyncio", "jaxad", "jax")]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    umask = os.umask(0o22)
    os.umask(umask)
    return {
        "hooks": (sys.unraisablehook, sys.excepthook, threading.excepthook, sys.displayhook),
        "streams": (sys.stdout, sys.stderr),
        "signals": [signal.getsignal(number) for number in SIGNALS], "wakeup": wakeup,
        "loggers": [
            (each.level, each.propagate, list(each.filters), list(each.handlers))
            for each in loggers
        ],
        "process": (os.getcwd(), umask, list(sys.path)),
        "bars": [bar for bar in tqdm.tqdm._instances],
    }

import absl.logging, jax  # libraries that configure themselves when they are imported
before = state()
import jaxad
config = jaxad.get_config("lowvae:smoke")
config.data.root = sys.argv[1]
detector = jaxad.fit(config, sys.argv[2])
assert detector.step > 0
after = state()
assert after == before, [(name, before[name], after[name]) for name in before]
assert jax.config.jax_compilation_cache_dir is None
# What jaxad does change: TensorFlow is quiet and sees no GPU, and epath takes names literally.
# See docs/safety.md.
"""


@pytest.mark.long
def test_a_fit_in_a_notebook_changes_nothing_of_its_caller(tmp_path, data_root, launch_environment):
    environment = {**launch_environment}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    result = subprocess.run(
        [sys.executable, "-c", CALLER, str(data_root), str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
