"""Clocks jump, also between restarts: order is a matter of steps alone."""

import os
import shutil
import time

JUMP = """
import time, datetime
real, real_ns, shift = time.time, time.time_ns, {days} * 86400
time.time = lambda: real() + shift
time.time_ns = lambda: real_ns() + shift * 10**9
"""


def test_the_clock_jumps_back_and_forth_between_restarts(forker, tiny, trained, tmp_path):
    workdir = tmp_path / "run"
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train"]
    killed = forker.start(*arguments, below=workdir / "checkpoints/6", kill_at=1)
    assert forker.finish(killed).code == -9
    for days, step in ((-400, 9), (400, 0)):
        # What is there already is of the far future, or past.
        seconds = time.time() - days * 86400
        for path in workdir.rglob("*"):
            os.utime(path, (seconds, seconds))
        child = forker.start(
            *arguments,
            setup=JUMP.format(days=days),
            below=workdir / f"checkpoints/{step}",
            kill_at=int(step > 0),
        )
        ended = forker.finish(child)
        assert ended.code == (-9 if step else 0), ended.printed
    place = "checkpoints/12/digests/metadata"
    assert (workdir / place).read_bytes() == (trained / place).read_bytes()
    there = [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    kept = [path.name for path in (trained / "checkpoints").iterdir() if path.name.isdigit()]
    assert sorted(there) == sorted(kept)


def test_scoring_goes_on_whatever_the_clock_says(forker, tiny, trained, tmp_path):
    """Its progress knows files by when they were written, and compares no times."""
    output = tmp_path / "scores"
    shutil.copy2(tiny / "test_squares.npz", tmp_path / "images.npz")
    arguments = [f"--workdir={trained}", "--mode=score", f"--output={output}"]
    arguments += [f"--input={tmp_path / 'images.npz'}"]
    child = forker.start(*arguments, below=output / "patients", kill_at=1)
    forker.finish(child)
    ended = forker.run(*arguments, setup=JUMP.format(days=-400))
    assert ended.code == 0, ended.printed
    assert (output / "patients.csv").exists()
