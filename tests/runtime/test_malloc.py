"""Freed memory is kept, but where the user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).parent.parent.parent / "jaxad" / "runtime" / "malloc.py"

#: Pixels of 16 images of 128 x 128, and of 8 of 64 x 64: default batches of AE-FLOW and pchVAE.
LARGE, SMALL = 16 * 128**2, 8 * 64**2

# Prints whether the C library was told, and pages that are fetched anew for the last of the pieces.
SCRIPT = f"""
import resource, runpy, sys
print(runpy.run_path({str(MODULE)!r})["keep_freed_memory"](int(sys.argv[1])))
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = b"x" * 100_000_000
    del piece
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def told_and_fetched(pixels: int = LARGE, **environment: str) -> tuple[str, int]:
    variables = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(pixels)],
        env={**variables, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told, fetched = found.stdout.split()
    return told, int(fetched)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc alone")
def test_a_piece_is_used_again():
    told, fetched = told_and_fetched()
    if told == "False":
        pytest.skip("the C library is not glibc")
    assert fetched < 1000  # of 24414 pages


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc alone")
def test_for_small_pieces_nothing_is_changed():
    told, fetched = told_and_fetched(SMALL)
    assert told == "False"
    assert fetched > 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc alone")
def test_what_the_user_says_stays():
    told, fetched = told_and_fetched(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072")
    assert told == "False"
    assert fetched > 20_000
