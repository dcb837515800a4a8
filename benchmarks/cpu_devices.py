"""Compares numbers of CPU devices: images per second of updates and scores, per system.

    python benchmarks/cpu_devices.py pchvae aeflow --devices=1,2 --repeats=3

Each measurement is a fresh process that starts as a run does and times updates (from features,
where training caches them) and scores of one batch; numbers of devices alternate. Measure on an
idle machine: the load is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import accelerator
import jaxad_tasks
from result_rows import mean_rate

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.runtime.compilation_cache import enable_compilation_cache
from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.storage.home import cache_folder

_SECONDS = 1.0  # minimum length of a window
_WINDOWS = 3


def measured(name: str, devices: int) -> dict[str, float]:
    """Returns images per second of updates and scores; needs a fresh process."""
    config = get_config(name)
    enable_compilation_cache(cache_folder)
    train = accelerator.smooth_images(config, config.data.batch_size)
    scored = accelerator.smooth_images(config, devices * config.evaluate.batch_size)
    tasks = jaxad_tasks.tasks(config.to_dict(), devices, train, scored)
    if from_features := tasks.get("train from features"):
        shares = {"train": 1.0}
        updates = {"train": len(train) / seconds_of(from_features)}
    else:
        phases = jaxad_tasks.update_phases(config, make_model(config))
        shares = {task: share for task, (_, share) in phases.items()}
        updates = {task: len(train) / seconds_of(tasks[task]) for task in shares}
    return {
        "train": mean_rate(updates, shares),
        "score": len(scored) / seconds_of(tasks["score"]),
    }


def seconds_of(task: jaxad_tasks.Task) -> float:
    """Returns the median seconds of a task, with several in flight."""

    def window(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            result = task()
        jaxad_tasks.wait(result)
        return (time.perf_counter() - start) / count

    for _ in range(2):
        window(2)
    count = max(1, round(_SECONDS / window(3)))
    return statistics.median(window(count) for _ in range(_WINDOWS))


def in_a_process(name: str, devices: int) -> dict[str, float]:
    """Runs `measured` in a process of its own, because JAX fixes its devices at the start."""
    command = [sys.executable, __file__, name, f"--devices={devices}", "--here"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{name} on {devices} devices: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def row(name: str, devices: list[int], repeats: int) -> str:
    """Returns a row: images per second for each number of devices, and their ratio."""
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in devices}
    for repeat in range(repeats):
        for count in devices if repeat % 2 == 0 else devices[::-1]:
            runs[count].append(in_a_process(name, count))
    cells = []
    for what in ("train", "score"):
        medians = [statistics.median(run[what] for run in runs[count]) for count in devices]
        cells += [f"{median:,.0f}" for median in medians]
        pairs = zip(runs[devices[-1]], runs[devices[0]], strict=True)
        ratios = sorted(many[what] / few[what] for many, few in pairs)
        cells.append(f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="+", help="configs, such as pchvae or aeflow:demo")
    parser.add_argument("--devices", default="1,2", help="numbers of CPU devices to compare")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="measure in this process (internal)")
    options = parser.parse_args()
    devices = [int(count) for count in options.devices.split(",")]
    if options.here:
        print(json.dumps(measured(options.systems[0], devices[0])))
        return
    print(f"load before: {os.getloadavg()[0]:.2f}\n")
    heads = [f"{what}, {count}" for what in ("train", "score") for count in (*devices, "ratio")]
    print(f"| images/s | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}", flush=True)
    for name in options.systems:
        print(row(name, devices, options.repeats), flush=True)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
