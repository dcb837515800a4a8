"""Damaged files of every kind are read or refused in one line; the process survives."""

import collections
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_damaged_files_are_read_or_refused(tmp_path):
    result = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ, PYTHONPATH=str(HERE.parents[2])),
        check=False,
    )
    # The last line names the file that crashed it (a negative code: -14 took too long).
    lines = result.stdout.splitlines()
    assert result.returncode == 0, (result.returncode, lines[-1:], result.stderr[-3000:])
    outcomes = collections.Counter(
        (kind, outcome) for kind, _, outcome in (line.split(" ") for line in lines)
    )
    assert outcomes.total() >= 1000
    kinds = {kind for kind, _ in outcomes}
    assert kinds == {"png", "deep.png", "jpg", "tif", "deep.tif", "nii", "nii.gz", "dcm"}
    # Without checksums, much damage goes unnoticed.
    assert all(outcomes[kind, "refused"] >= 20 for kind in kinds)
    assert all(outcomes[kind, "read"] >= 5 for kind in ("jpg", "tif", "deep.tif", "nii", "dcm"))
    assert all(outcomes[kind, "read"] <= 5 for kind in ("png", "deep.png", "nii.gz"))
