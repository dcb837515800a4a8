"""Clocks that jump, also between restarts: order depends only on steps."""

import os
import time

JUMP = """
import time, datetime
real, real_ns, shift = time.time, time.time_ns, {days} * 86400
time.time = lambda: real() + shift
time.time_ns = lambda: real_ns() + shift * 10**9
"""


def test_the_clock_jumps_ahead_and_back_between_restarts(forker, tiny, trained, tmp_path):
    workdir = tmp_path / "run"
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train"]
    ahead = forker.start(
        *arguments, setup=JUMP.format(days=400), below=workdir / "checkpoints/9", kill_at=1
    )
    assert forker.finish(ahead).code == -9
    # What is there already was written in the future.
    seconds = time.time() + 400 * 86400
    for path in workdir.rglob("*"):
        os.utime(path, (seconds, seconds))
    ended = forker.run(*arguments, setup=JUMP.format(days=-400))
    assert ended.code == 0, ended.printed
    place = "checkpoints/12/digests/metadata"
    assert (workdir / place).read_bytes() == (trained / place).read_bytes()
    there, whole = (
        sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit())
        for run in (workdir, trained)
    )
    assert there == whole
