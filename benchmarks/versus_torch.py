"""Compares jaxad with PyTorch: the same network, losses, optimiser and shapes, in turn.

    pip install -e . torch FrEIA && python benchmarks/versus_torch.py --system=pchvae

It first checks that both sides compute the same with the same weights and have as many parameters
(`agreement.py`). Each side is a process of its own; measurements alternate between sides, and
ratios are those of pairs. PyTorch runs in its best CPU setting: channels last, every core, its
fused Adam, inference mode for scores, no batch norm in a frozen encoder. Images are noise in
memory, without augmentation. Peaks of memory (the largest resident set) and the time to the first
update, from the end of the imports, come from fresh processes.

On a shared machine, processor time on one core is more reliable than wall time:
`taskset -c 0 python benchmarks/versus_torch.py --clock=cpu --devices=1 --fresh_repeats=0`.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_MEMORY_UPDATES = 10
_SECONDS = 1.0  # minimum length of a measurement


def _images(config: dict[str, Any], count: int) -> np.ndarray:
    size, channels = config["data"]["image_size"], config["data"]["channels"]
    return np.random.default_rng(0).uniform(size=(count, size, size, channels)).astype(np.float32)


def _tasks(side: dict[str, Any], config: dict[str, Any], variables: Any) -> Any:
    """Returns a side's measured functions, and a function that waits for their results."""
    train = _images(config, config["data"]["batch_size"])
    score = _images(config, config["evaluate"]["batch_size"])
    if side["devices"]:
        import jax
        import jaxad_tasks

        assert jax.default_backend() == {"cpu": "cpu", "cuda": "gpu"}[side["place"]]
        return jaxad_tasks.tasks(config, side["devices"], train, score), jaxad_tasks.wait
    import torch
    from torch_systems import training

    def wait(result: Any) -> Any:
        if side["place"] == "cuda":
            torch.cuda.synchronize()
        return result

    return training.tasks(config, variables, train, score, side["place"]), wait


def _serve(pipe: Connection, side: dict[str, Any], config: dict[str, Any], variables: Any) -> None:
    """Serves requests (name, count) with the seconds that they take, until it receives None."""
    tasks, wait = _tasks(side, config, variables)
    clock = _CLOCKS[side["clock"]]
    pipe.send(list(tasks))
    while (request := pipe.recv()) is not None:
        name, count = request
        start = clock()
        for _ in range(count):
            result = tasks[name]()
        wait(result)
        pipe.send(clock() - start)


def _memory() -> float:
    """Returns the largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _serve_peak(
    pipe: Connection, side: dict[str, Any], config: dict[str, Any], variables: Any, task: str
) -> None:
    """Sends the peak memory, in MiB, of a process that runs only one task."""
    tasks, wait = _tasks(side, config, variables)
    for _ in range(_MEMORY_UPDATES):
        wait(tasks[task]())
    pipe.send(_memory())


def _serve_first(
    pipe: Connection, side: dict[str, Any], config: dict[str, Any], variables: Any
) -> None:
    """Sends the seconds to the first update."""
    images = _images(config, config["data"]["batch_size"])
    if side["devices"]:
        import jaxad_tasks

        pipe.send(jaxad_tasks.first_update(config, side["devices"], images))
    else:
        from torch_systems import training

        pipe.send(training.first_update(config, variables, images, side["place"]))


def _serve_check(pipe: Connection, config: dict[str, Any]) -> None:
    import agreement
    import jax

    jax.config.update("jax_platforms", "cpu")  # accelerators round products differently
    pipe.send(agreement.check(config, _images(config, 8)))


def _serve_config(pipe: Connection, name: str, changes: dict[str, Any]) -> None:
    from jaxad.config import get_config

    config = get_config(name)
    config.update_from_flattened_dict(changes)
    pipe.send(config.to_dict())


#: System -> changes to its recommended config: the twin is the paper's model.
_TWINS: dict[str, dict[str, Any]] = {
    "aeflow": {
        "model.strides": (16,), "model.whitening": "none", "model.num_blocks": 8,
        "model.decoder_widths": (64, 32, 16), "model.flow_score": "exp_mean",
    },
    "fastflow": {
        "model.strides": (4, 8, 16), "model.whitening": "none", "model.num_blocks": 8,
        "model.image_score": "max",
    },
}  # fmt: skip


def _start(function: Callable[..., None], *arguments: Any) -> Connection:
    """Starts a function in a fresh process, which imports only what it needs."""
    ours, theirs = _CONTEXT.Pipe()
    _CONTEXT.Process(target=function, args=(theirs, *arguments), daemon=True).start()
    theirs.close()
    return ours


def _answer(function: Callable[..., None], *arguments: Any) -> Any:
    return _start(function, *arguments).recv()


_CONTEXT = multiprocessing.get_context("spawn")


def row(name: str, values: list[list[float]], digits: int, higher: bool) -> str:
    """Returns a row of the table: medians, and the ratio of each jaxad side to PyTorch.

    Args:
        name: the row's name.
        values: by repeat, the value of each side; PyTorch first.
        digits: digits of the medians.
        higher: whether more is better; ratios are above 1 where jaxad is better.
    """
    cells = [f"{statistics.median(column):,.{digits}f}" for column in zip(*values, strict=True)]
    for side in range(1, len(values[0])):
        ratios = [v[side] / v[0] if higher else v[0] / v[side] for v in values]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {name} | {' | '.join(cells)} |"


def throughput(
    sides: dict[str, Any], config: dict[str, Any], variables: Any, repeats: int, only: str
) -> Iterator[str]:
    """Yields rows of images per second, all sides in turn."""
    pipes = [_start(_serve, side, config, variables) for side in sides.values()]
    names = [pipe.recv() for pipe in pipes][0]
    sizes = {"score": config["evaluate"]["batch_size"], "matrix product": 1}
    for name in [name for name in names if only in ("", name)]:
        for pipe in pipes:  # compile and warm up
            pipe.send((name, 2))
            pipe.recv()
        counts = []
        for pipe in pipes:
            pipe.send((name, 3))
            counts.append(max(1, round(3 * _SECONDS / pipe.recv())))
        size, values = sizes.get(name, config["data"]["batch_size"]), []
        for _ in range(repeats):
            seconds = []
            for pipe, count in zip(pipes, counts, strict=True):
                pipe.send((name, count))
                seconds.append(pipe.recv() / count)
            values.append([size / taken for taken in seconds])
        unit = "1/s" if name == "matrix product" else "images/s"
        yield row(f"{name}, {unit}", values, 1 if values[0][0] < 100 else 0, higher=True)
    for pipe in pipes:
        pipe.send(None)


def fresh(
    sides: dict[str, Any], config: dict[str, Any], variables: Any, repeats: int
) -> Iterator[str]:
    """Yields rows of memory and of the time to the first update, of fresh processes."""
    cached = "encoder" in variables
    for name in ("train from images" if cached else "train", "score"):
        values = [
            [_answer(_serve_peak, side, config, variables, name) for side in sides.values()]
            for _ in range(repeats)
        ]
        yield row(f"peak memory, {name}, MiB", values, 0, higher=False)
    by_cache: dict[str, list[list[float]]] = {"empty": [], "filled": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            for times in by_cache.values():
                times.append(
                    [_answer(_serve_first, side, config, variables) for side in sides.values()]
                )
    for cache, times in by_cache.items():
        yield row(f"first update, {cache} cache of programs, s", times, 2, higher=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", default="pchvae", help="a config: pchvae, vqvae2, fastflow, "
                        "aeflow; the paper's size is aeflow:paper")  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=0, help="of training; 0: the config's")
    parser.add_argument("--score_batch_size", type=int, default=0, help="0: the config's")
    parser.add_argument("--size", type=int, default=0, help="of images; 0: the config's")
    parser.add_argument("--subnet", default="", choices=("", "conv", "resnet"), help="of flows")
    parser.add_argument("--devices", default="1,2", help="CPU devices that share a batch")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of PyTorch; "
                        "JAX takes what it finds. cuda: with --devices=1 and --fresh_repeats=0, "
                        "training with TF32, cuDNN choosing among its kernels")  # fmt: skip
    parser.add_argument("--clock", default="wall", choices=list(_CLOCKS), help="cpu: processor "
                        "time of a side's process, of one core (see above)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fresh_repeats", type=int, default=3, help="of fresh processes; 0: none")
    parser.add_argument("--only", default="", help="one of the tasks, or fresh: what fresh "
                        "processes need")  # fmt: skip
    options = parser.parse_args()
    if options.device == "cuda" and options.devices != "1":
        parser.error("--device=cuda: also give --devices=1")

    changes: dict[str, Any] = {
        "data.batch_size": options.batch_size,
        "evaluate.batch_size": options.score_batch_size,
        "data.image_size": options.size,
        "model.subnet": options.subnet,
        # The weights of Wide-ResNet-50-2 need a download.
        "model.weights": "random" if ":paper" in options.system else "",
    }
    name, _, variant = options.system.partition(":")
    changes |= {} if variant == "paper" else _TWINS.get(name, {})
    changes["data.channels"] = 1
    config = _answer(_serve_config, options.system, {k: v for k, v in changes.items() if v})
    variables = _answer(_serve_check, config)
    sides: dict[str, Any] = {
        "PyTorch": {"devices": 0, "clock": options.clock, "place": options.device}
    }
    for count in map(int, options.devices.split(",")):
        sides[f"jaxad, {count} device{'s' if count > 1 else ''}"] = {
            "devices": count, "clock": options.clock, "place": options.device,
        }  # fmt: skip
    load = os.getloadavg()[0]
    print(
        f"{options.system}, {config['data']['image_size']} px, batches of "
        f"{config['data']['batch_size']} (train) and {config['evaluate']['batch_size']} (score); "
        f"{options.device}, {len(os.sched_getaffinity(0))} cores, {options.clock} clock, load "
        f"before: {load:.1f}\n"
    )  # fmt: skip
    columns = [*sides, *(f"ratio, {name} (min to max)" for name in list(sides)[1:])]
    print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}", flush=True)
    if options.only != "fresh":
        for line in throughput(sides, config, variables, options.repeats, options.only):
            print(line, flush=True)
    if options.fresh_repeats and options.only in ("", "fresh"):
        for line in fresh(sides, config, variables, options.fresh_repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main()
