"""Measures the programs on a GPU or TPU: agreement with the CPU, and speed.

    python benchmarks/accelerator.py agreement pchvae vqvae2 fastflow aeflow
    python benchmarks/accelerator.py throughput pchvae --settings=float32,bfloat16

`agreement` computes scores, losses and their gradients of one batch on the CPU and on the
accelerator, in float32 at the backend's default precision (TF32 on a GPU, passes of bfloat16 on a
TPU) and at the highest. It prints the largest difference, relative to the value or, if that is
larger, to the range of all values of its kind. `throughput` times updates and scores of each
setting in turn in one process; batches are on the device.
"""

import argparse
import contextlib
import dataclasses
import statistics
import time
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxad_tasks import as_batch
from ml_collections import ConfigDict

from jaxad.config import get_config
from jaxad.config.model import image_shape, make_model
from jaxad.detector.restored import score_batch
from jaxad.nn import blocks
from jaxad.nn.backbones import efficientnet_lite, wide_resnet
from jaxad.nn.flow import network
from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.train.program import make_program
from jaxad.train.state import initial_variables
from jaxad.types import Model, PretrainedModel, Tree

_UPDATES = 10_000
_SECONDS = 1.0  # minimum length of a measurement


@dataclasses.dataclass(frozen=True)
class Setting:
    """Options with which an update is compiled.

    Attributes:
        changes: config fields and their values.
        precision: precision of float32 products; None is the backend's default.
        seeds: number of seeds in one program.
        xla: whether layers are XLA's own instead of `jaxad.nn.convolution`'s.
    """

    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    precision: str | None = None
    seeds: int = 1
    xla: bool = False


SETTINGS = {
    "float32": Setting(),
    "highest": Setting(precision="highest"),
    "bfloat16": Setting({"precision": "bfloat16"}),
    "xla": Setting(xla=True),
    "xla-bfloat16": Setting({"precision": "bfloat16"}, xla=True),
    "scan16": Setting({"train.steps_per_dispatch": 16}),
    "seeds4": Setting(seeds=4),
    "rematerialised": Setting({"train.rematerialise": True}),
}


def smooth_images(config: ConfigDict, count: int) -> np.ndarray:
    """Returns images of blurred noise, float32 [B, H, W, C] in [0, 1]."""
    size, _, channels = image_shape(config)
    noise = np.random.default_rng(0).normal(size=(count, size, size, channels))
    blurred = scipy.ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    return np.clip(0.5 + 2 * blurred, 0, 1).astype(np.float32)


@contextlib.contextmanager
def xla_convolutions(wanted: bool) -> Iterator[None]:
    """Makes layers that are built inside the block use XLA's own programs, if wanted."""
    if not wanted:
        yield
        return
    with contextlib.ExitStack() as stack:
        for name in ("conv_general_dilated", "dot_general"):
            for module in (blocks, efficientnet_lite, network, wide_resnet):
                if hasattr(module, name):
                    xla = getattr(jax.lax, name)
                    stack.enter_context(unittest.mock.patch.object(module, name, xla))
        yield


def changed(name: str, changes: dict[str, Any]) -> ConfigDict:
    """Returns a config with changed fields."""
    config = get_config(name)
    if name.endswith(":paper") and "weights" in config.model and "backbone" in config.model:
        config.model.weights = "random"  # Wide-ResNet-50-2's need a download
    config.update_from_flattened_dict(changes)
    return config


def computed(model: Model, variables: Tree, images: np.ndarray, precision: str | None) -> Tree:
    """Returns scores, maps, losses and gradients of one batch on the default device."""
    variables = jax.tree.map(jnp.asarray, variables)
    batch, keys = as_batch(images), jax.random.split(jax.random.key(0), len(images))

    def losses(params: Tree) -> tuple[jax.Array, Tree]:
        by_network, _ = model.losses({**variables, "params": params}, batch, keys, train=True)
        return sum(loss.mean() for loss in by_network.values()), by_network

    def everything(params: Tree) -> Tree:
        (_, values), gradient = jax.value_and_grad(losses, has_aux=True)(params)
        scores = score_batch(model, {**variables, "params": params}, images)
        return {"score": scores.image, "map": scores.pixel, "losses": values, "gradient": gradient}

    with jax.default_matmul_precision(precision):
        return jax.device_get(jax.jit(everything)(variables["params"]))


def flat(tree: Tree) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def distances(ours: Tree, theirs: Tree) -> list[float]:
    """Returns the largest relative distances of scores, maps and losses, and of gradients."""
    largest = []
    for name in ("score", "map", "losses"):
        a, b = flat(ours[name]), flat(theirs[name])
        largest.append(float(np.max(np.abs(a - b) / np.maximum(np.abs(b), np.ptp(b)))))
    a, b = flat(ours["gradient"]), flat(theirs["gradient"])
    return [*largest, float(np.linalg.norm(a - b) / np.linalg.norm(b))]


def agreement(name: str) -> Iterator[str]:
    """Yields a row for each precision."""
    config = changed(name, {})
    model = make_model(config)
    images = smooth_images(config, 16)
    with jax.default_device(jax.devices("cpu")[0]):
        variables = jax.device_get(initial_variables(model, 0))
        expected = computed(model, variables, images, "highest")
    for precision in (None, "highest"):
        start = time.perf_counter()
        results = computed(model, variables, images, precision)
        cells = " | ".join(f"{distance:.1e}" for distance in distances(results, expected))
        seconds = time.perf_counter() - start
        yield f"| {name} | {precision or 'default'} | {cells} | {seconds:.0f} |"


@dataclasses.dataclass
class Measured:
    """A compiled dispatch of updates, or of scores of a batch.

    Attributes:
        run: sends the program to the device.
        images: number of images of each seed.
        updates: number of successive updates in the dispatch.
        seeds: number of seeds that it trains.
        flops: operations of one update; 0 if the backend does not report them.
        temporaries: MiB beside arguments and results.
        compile_seconds: time of compilation, or of loading from JAX's cache.
    """

    run: Callable[[], Tree]
    images: int
    updates: int
    seeds: int
    flops: float
    temporaries: float
    compile_seconds: float


def costs_of(function: Any, *arguments: Tree) -> dict[str, float]:
    """Compiles a function for these arguments and returns its costs."""
    start = time.perf_counter()
    made = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    costs = made.cost_analysis() or {}
    memory = made.memory_analysis()
    return {
        "flops": float(costs.get("flops", 0)),
        "temporaries": memory.temp_size_in_bytes / 2**20,
        "compile_seconds": seconds,
    }


def update(name: str, setting: Setting, changes: dict[str, Any]) -> Measured:
    """Compiles the update of the first phase, with features where training caches them."""
    config = changed(name, {**changes, **setting.changes})
    size, count = config.data.batch_size, config.train.steps_per_dispatch
    with xla_convolutions(setting.xla), jax.default_matmul_precision(setting.precision):
        program = make_program(config, range(setting.seeds), size * _UPDATES)
        batch = as_batch(smooth_images(config, size))
        state = program.parallel.put_replicated(program.stack(program.initial_states))
        if isinstance(program.model, PretrainedModel):
            encode = program.parallel.compile_per_example(
                lambda v, b: program.model.features(v, b["image"])
            )
            one = program.parallel.put_replicated(program.initial_states[0].variables)
            features = np.asarray(encode(one, program.parallel.put_batch(batch)))
            batch["features"] = features.astype(config.train.feature_cache_dtype)
        for axis in (setting.seeds, count):
            if axis > 1:
                batch = {key: np.stack([x] * axis, axis=1) for key, x in batch.items()}
        placed = program.parallel.put_batch(batch)
        function = program.updates[program.phases.at(0), count]
        costs = costs_of(function, state, placed)
    held = {"state": state}

    def run() -> Tree:
        # As in training, with a bound on the programs in flight. The precision is part of the
        # program that JAX looks up.
        with jax.default_matmul_precision(setting.precision):
            held["state"], metrics = function(held["state"], placed)
        return metrics

    return Measured(run, size * count, count, setting.seeds, **costs)


def score(name: str, setting: Setting, changes: dict[str, Any]) -> Measured:
    """Compiles the scores of a batch."""
    config = changed(name, {**changes, **setting.changes})
    with xla_convolutions(setting.xla):
        model = make_model(config)
        variables = jax.device_put(initial_variables(model, 0), jax.devices()[0])
        images = jnp.asarray(smooth_images(config, config.evaluate.batch_size))
        function = jax.jit(lambda v, x: score_batch(model, v, x).image)
        costs = costs_of(function, variables, images)
    return Measured(lambda: function(variables, images), len(images), 1, 1, **costs)


def throughput(
    name: str, settings: list[str], changes: dict[str, Any], repeats: int, compile_only: bool
) -> Iterator[str]:
    """Yields a row for each setting's update and score."""
    made: dict[str, Measured] = {}
    for setting in settings:
        made[f"update, {setting}"] = update(name, SETTINGS[setting], changes)
        if SETTINGS[setting].changes.keys() <= {"precision"} and SETTINGS[setting].seeds == 1:
            made[f"score, {setting}"] = score(name, SETTINGS[setting], changes)
    if compile_only:
        yield from (f"{name}, {what}: compiled in {m.compile_seconds:.1f} s"
                    for what, m in made.items())  # fmt: skip
        return
    counts, times = {}, {what: [] for what in made}
    for what, one in made.items():
        for _ in range(3):
            jax.block_until_ready(one.run())
        counts[what] = max(1, round(_SECONDS / timed(one, 10)))
    for _ in range(repeats):
        for what, one in made.items():
            times[what].append(timed(one, counts[what]) / one.updates)
    for what, one in made.items():
        seconds = statistics.median(times[what])
        images = one.seeds * one.images / one.updates  # of an update
        low, high = images / max(times[what]), images / min(times[what])
        yield (
            f"| {name} | {what} | {1e3 * seconds:.2f} | {images / seconds:,.0f} "
            f"({low:,.0f} to {high:,.0f}) | {one.flops / seconds / 1e12:.2f} "
            f"| {one.temporaries:.0f} | {one.compile_seconds:.0f} |"
        )


def timed(one: Measured, count: int) -> float:
    """Returns the seconds of a dispatch, with `count` of them in flight."""
    start = time.perf_counter()
    for _ in range(count):
        result = one.run()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("agreement", "throughput"))
    parser.add_argument("systems", nargs="+", help="configs, such as pchvae or aeflow:paper")
    parser.add_argument("--settings", default=",".join(SETTINGS), help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--batch_size", type=int, default=0, help="of training; 0: the config's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile_only", action="store_true", help="fills JAX's cache of programs")
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}\n")
    heads = {
        "agreement": "| config | products | score | map | losses | gradient | compile and run, s |",
        "throughput": "| config | program | ms | images/s (min to max) | TFLOP/s | temporaries, "
        "MiB | compile, s |",
    }  # fmt: skip
    head = heads[options.part]
    print(f"{head}\n|{'---|' * (head.count('|') - 1)}", flush=True)
    changes = {"data.batch_size": options.batch_size} if options.batch_size else {}
    for name in options.systems:
        rows = (
            agreement(name)
            if options.part == "agreement"
            else throughput(
                name, options.settings.split(","), changes, options.repeats, options.compile_only
            )
        )
        for line in rows:
            print(line, flush=True)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
