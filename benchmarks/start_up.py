"""Seconds from the end of the imports to the first update: of a first run, and of a second one.

    python benchmarks/start_up.py --config=pchvae:demo --repeats=3

Each run is a process of its own in a folder of its own; the second finds the first one's compiled
programs. Data are generated before. In turn: every pair starts with an empty cache.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_RUN = """
import sys, time
import jaxad
from jaxad import run
from jaxad.cpu_tensorflow import tensorflow
from jaxad.train import loop
tensorflow()
config = jaxad.get_config(sys.argv[1])
config.data.root = sys.argv[3]
add = loop._Window.add
def first(self, step, metrics):
    add(self, step, metrics)
    float(next(iter(metrics.values())).sum())  # it is computed
    print(f"first update: {time.perf_counter() - start}", flush=True)
    sys.exit()
loop._Window.add = first
start = time.perf_counter()
run.train(config, sys.argv[2])
"""


def seconds(config: str, workdir: Path, data: str, cache: Path) -> float:
    """What one run takes."""
    environment = dict(os.environ, XDG_CACHE_HOME=str(cache))
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    result = subprocess.run(
        [sys.executable, "-c", _RUN, config, str(workdir), data],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in result.stdout.splitlines() if line.startswith("first update: ")]
    assert lines, result.stderr
    return float(lines[0].split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="pchvae:demo")
    parser.add_argument("--data", default="", help="config.data.root")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = options.data or str(folder / "data")
        seconds(options.config, folder / "generate", data, folder / "cache")
        pairs = [
            [
                seconds(options.config, folder / f"{n}{which}", data, folder / f"cache{n}")
                for which in ("first", "second")
            ]
            for n in range(options.repeats)
        ]
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [one / two for one, two in pairs]
    print(
        f"{options.config}: first {first:.1f} s, second {second:.1f} s, ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
