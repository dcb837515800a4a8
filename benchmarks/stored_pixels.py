"""Compares batches read at random from array_record files with batches from memory.

    python benchmarks/stored_pixels.py

For each image size, in turn and several times, in images per second: batches from memory, batches
from disk in one process, and batches from disk in two processes at once, each of which reads its
half of every batch; then the updates of a system on images of that size, which take the batches.
Prints a table, and with `--json` writes all figures to a file.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad.config import get_config
from jaxad.data.pipeline import batching
from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.sources import DataSet
from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.runtime.parallel import split_cpu

#: Systems and image sizes; no demo that is trained from images takes more per second than highvae.
CASES = (("highvae:demo", 64), ("pchvae:demo", 64), ("ae:demo", 128), ("ae:demo", 256))
#: GiB: everything stays in memory, or nothing does.
MEMORY, DISK = 1e3, 1e-9


def make_config(name: str, size: int, subjects: int) -> ConfigDict:
    """Returns a demo with images of this size; sizes of its model stay."""
    config = get_config(name)
    config.data.image_size = size
    config.data.num_subjects = (subjects, 1, 1, 1)
    return config


def read_train(config: ConfigDict, in_memory: float) -> Any:
    """Returns the training split, in memory or on disk."""
    config.data.in_memory = in_memory
    return DataSet(config.data).split("train")


def batches(config: ConfigDict, split: Any, steps: int, process: int, of: int) -> Iterator[Any]:
    """Returns the batches of a process of several."""
    return batching.train_batches(
        split,
        batch_size=config.data.batch_size,
        seed=config.seed,
        augmentation=Augmentation(**config.data.augment),
        start_step=0,
        stop_step=steps + 1,
        process_index=process,
        process_count=of,
    )


def rate(config: ConfigDict, split: Any, steps: int, process: int = 0, of: int = 1) -> float:
    """Returns the images per second of one process; the first batch builds the graph."""
    iterator = batches(config, split, steps, process, of)
    next(iterator)
    start = time.perf_counter()
    count = sum(len(batch["image"]) for batch in iterator)
    return count / (time.perf_counter() - start)


def serve(config: ConfigDict, steps: int, process: int, of: int, barrier: Any, rates: Any) -> None:
    """Measures the disk in one of several processes whenever all are ready.

    `rates` receives that of each process; its last number is 0 once there is nothing to measure.
    """
    split = read_train(config, DISK)
    while True:
        barrier.wait()
        if not rates[-1]:
            return
        rates[process] = rate(config, split, steps, process, of)
        barrier.wait()


def update_rate(config: ConfigDict, batch: dict[str, np.ndarray]) -> Callable[[int], float]:
    """Returns a function that measures the images per second of `n` updates on a batch."""
    from jaxad_tasks import make_updates

    from jaxad.config.model import make_model
    from jaxad.runtime.parallel import make_parallel
    from jaxad.train.state import initial_variables

    parallel = make_parallel(config.parallel)
    model = make_model(config, parallel.axis_name)
    updates, state = make_updates(config, parallel, model, initial_variables(model, config.seed))
    (step,) = updates.values()
    fixed = parallel.put_batch(batch)
    state, metrics = step(state, fixed)
    parallel.get_replicated(metrics)

    def measure(count: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(count):
            state, metrics = step(state, fixed)
        parallel.get_replicated(metrics)
        return count * config.data.batch_size / (time.perf_counter() - start)

    return measure


def measure_case(name: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides at one image size, in turn, and checks that batches are the same."""
    config = make_config(name, size, options.subjects)
    memory = read_train(config, MEMORY)
    disk = read_train(config, DISK)
    pairs = zip(batches(config, memory, 5, 0, 1), batches(config, disk, 5, 0, 1), strict=True)
    for ours, theirs in pairs:
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])
    context = multiprocessing.get_context("spawn")
    barrier, shared = context.Barrier(3), context.Array("d", [0.0, 0.0, 1.0])
    workers = [
        context.Process(target=serve, args=(config, options.steps, index, 2, barrier, shared))
        for index in range(2)
    ]
    for worker in workers:
        worker.start()
    update = update_rate(config, next(batches(config, memory, 1, 0, 1)))
    rates: dict[str, list[float]] = {
        "memory": [], "disk": [], "disk, two processes": [], "update": []
    }  # fmt: skip
    for _ in range(options.repeats):
        rates["memory"].append(rate(config, memory, options.steps))
        rates["disk"].append(rate(config, disk, options.steps))
        barrier.wait()
        barrier.wait()
        rates["disk, two processes"].append(shared[0] + shared[1])
        rates["update"].append(update(options.updates))
    shared[-1] = 0.0
    barrier.wait()
    for worker in workers:
        worker.join()
    return {
        "config": name,
        "image_size": size,
        "batch_size": config.data.batch_size,
        "images": len(memory),
        "rates": rates,
        "load": os.getloadavg(),
    }


def row(result: dict[str, Any]) -> str:
    """Returns the row of a case: medians, and ratios to the update (median, smallest)."""
    rates = result["rates"]
    cells = [f"{result['image_size']}", f"{result['config']}"]
    cells += [f"{statistics.median(values):,.0f}" for values in rates.values()]
    for name in ("disk", "disk, two processes"):
        ratios = [a / b for a, b in zip(rates[name], rates["update"], strict=True)]
        cells.append(f"{statistics.median(ratios):.1f} (min {min(ratios):.1f})")
    cells.append(f"{result['load'][0]:.1f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument(
        "--subjects", type=int, default=24, help="training subjects, 20 images each"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="batches of each measurement")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--json", type=Path, help="receives all figures")
    options = parser.parse_args()
    split_cpu(get_config(CASES[0][0]).cpu_devices)
    print(
        "| px | update of | memory, images/s | disk | disk, two processes | update "
        "| disk / update | two processes / update | load |\n" + "|---" * 9 + "|"
    )
    results = []
    for name, size in CASES:
        if size not in options.sizes:
            continue
        results.append(measure_case(name, size, options))
        print(row(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
