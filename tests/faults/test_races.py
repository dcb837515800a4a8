"""Two processes that want the same folder: one gets it, the other is refused or waits."""

import shutil

import pytest

#: A process that gets a lock holds it until another one has asked for it, and then ends.
HOLD = """
import fcntl, os, pathlib, time
real = fcntl.flock
def flock(file, operation):
    refused = pathlib.Path(f"{file.name}.refused")
    try:
        real(file, operation)
    except BlockingIOError:
        refused.touch()
        raise
    end = time.monotonic() + 120
    while not refused.exists() and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(0)
fcntl.flock = flock
"""

#: Ends the process at the second split.
KILL_IN_GENERATION = """
import os, signal
from jaxad.data.synthetic import icbm_synth
real = icbm_synth.subject_examples
def examples(seed, split, number, image_size):
    if split != "train":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(seed, split, number, image_size)
icbm_synth.subject_examples = examples
"""


@pytest.mark.parametrize("mode", ["train", "evaluate", "export", "score", "study"])
def test_of_two_processes_one_is_refused(mode, forker, tiny, trained, tmp_path):
    folder = tmp_path / "run"
    arguments = [f"--workdir={folder}", f"--mode={mode}"]
    if mode == "train":
        arguments += [f"--config={tiny / 'tiny.py'}"]
    elif mode == "study":
        arguments += [f"--config={tiny / 'study.py'}"]
    elif mode == "score":
        arguments = [f"--workdir={trained}", "--mode=score", f"--output={folder}"]
        arguments += [f"--input={tiny / 'test_squares.npz'}"]
    else:
        shutil.copytree(trained, folder)
    children = [forker.start(*arguments, setup=HOLD) for _ in range(2)]
    first, second = sorted((forker.finish(child) for child in children), key=lambda one: one.code)
    assert first.code == 0, first.printed
    line = second.only_line(2)
    assert f"workdir '{folder}': another process is using it" in line


def test_one_of_two_processes_generates_the_data(forker, tmp_path):
    """Both use them."""
    arguments = [
        "--config=pchvae:smoke", "--mode=inspect", f"--config.data.root={tmp_path / 'data'}",
        "--config.data.num_subjects=(1,1,1,1)",
    ]  # fmt: skip
    children = [forker.start(*arguments, f"--workdir={tmp_path / name}") for name in "ab"]
    for child in children:
        ended = forker.finish(child)
        assert ended.code == 0, ended.printed
    assert (tmp_path / "a/inspect.png").read_bytes() == (tmp_path / "b/inspect.png").read_bytes()
    assert not list((tmp_path / "data").rglob("incomplete.*"))


def test_data_whose_generation_was_killed(forker, tmp_path):
    """They are generated again; the incomplete ones are removed."""
    root = tmp_path / "data"
    arguments = [
        "--config=pchvae:smoke", "--mode=inspect", f"--config.data.root={root}",
        "--config.data.num_subjects=(1,1,1,1)", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert forker.run(*arguments, setup=KILL_IN_GENERATION).code == -9
    assert list(root.rglob("incomplete.*"))
    ended = forker.run(*arguments)
    assert ended.code == 0, ended.printed
    assert not list(root.rglob("incomplete.*"))
