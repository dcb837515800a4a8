"""Measures memory and time of `--mode=score` for few and for many images.

    python benchmarks/score_memory.py --images 1000 20000

Trains a tiny autoencoder on generated files, then scores folders with these numbers of images of
64 x 64 pixels without maps, each in its own process. Memory is the largest resident set of that
process, without the processes that read files.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_LAUNCH = Path(__file__).parent.parent / "launch.py"


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Writes images of noise; returns the folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")
    return folder


def launch(*arguments: str) -> tuple[float, float]:
    """Runs a command; returns its seconds and its largest resident set in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(_LAUNCH), *arguments])
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return time.perf_counter() - start, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 20000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        places = (("train/good", 64), ("test/good", 8), ("test/other", 8))
        for seed, (place, count) in enumerate(places):
            write_images(root / "data" / place, count, seed)
        run = f"--workdir={root / 'run'}"
        launch(
            "--config=ae:smoke", run, "--config.data.name=folder",
            f"--config.data.root={root / 'data'}", "--config.data.image_size=64",
        )  # fmt: skip
        for count in options.images:
            folder = write_images(root / f"in{count}", count, seed=len(places))
            seconds, memory = launch(
                "--mode=score", run, f"--input={folder}", f"--output={root / f'out{count}'}",
                "--maps=none", "--rate=0.5",
            )  # fmt: skip
            print(f"{count:,} images: {memory:,.0f} MiB, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
