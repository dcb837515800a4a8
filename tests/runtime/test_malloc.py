"""malloc keeps freed memory unless batches are small or the user configures it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).parent.parent.parent / "jaxad" / "runtime" / "malloc.py"

#: Pixels of 16 images of 128 x 128, and of 8 of 64 x 64: default batches of AE-FLOW and pchVAE.
LARGE, SMALL = 16 * 128**2, 8 * 64**2

# Prints whether malloc was changed, and the page faults of the last of three large blocks.
SCRIPT = f"""
import resource, runpy, sys
print(runpy.run_path({str(MODULE)!r})["keep_freed_memory"](int(sys.argv[1])))
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = b"x" * 100_000_000
    del piece
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def changed_and_faults(pixels: int = LARGE, **environment: str) -> tuple[str, int]:
    variables = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(pixels)],
        env={**variables, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    changed, faults = found.stdout.split()
    return changed, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="only for glibc")
def test_a_large_block_is_reused():
    changed, faults = changed_and_faults()
    if changed == "False":
        pytest.skip("the C library is not glibc")
    assert faults < 1000  # of 24,414 pages


@pytest.mark.skipif(sys.platform != "linux", reason="only for glibc")
def test_small_batches_change_nothing():
    changed, faults = changed_and_faults(SMALL)
    assert changed == "False"
    assert faults > 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="only for glibc")
def test_settings_of_the_user_take_precedence():
    changed, faults = changed_and_faults(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072")
    assert changed == "False"
    assert faults > 20_000
