"""jaxad's side of `versus_torch.py`: the functions that training and evaluation call."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxad.config.model import make_model, pixels_per_device
from jaxad.detector.restored import score_batch
from jaxad.runtime.compilation_cache import enable_compilation_cache
from jaxad.runtime.malloc import keep_freed_memory
from jaxad.runtime.parallel import Parallel, make_parallel, split_cpu
from jaxad.storage.home import cache_folder
from jaxad.train.optim import make_optimisers
from jaxad.train.phases import make_phases
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step
from jaxad.types import Model, PretrainedModel, Tree

Task = Callable[[], object]


def as_batch(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns a batch as the input pipeline does."""
    count = len(images)
    return {
        "image": images,
        "label": np.zeros(count, np.int32),
        "_valid": np.ones(count, bool),
        "_index": np.arange(count, dtype=np.int32),
    }


def _make_step(
    config: ConfigDict, parallel: Parallel, model: Model, variables: Tree
) -> tuple[Callable[[Tree, Tree], Any], Tree]:
    """Returns the compiled update and the initial state on the devices."""
    phases = make_phases(config.train.updates, model.networks, num_steps=10_000)
    optimisers = make_optimisers(config.optim, model, variables["params"], phases)
    step = functools.partial(train_step, model=model, optimisers=optimisers)
    state = parallel.put_replicated(create_state(variables, optimisers, config.seed))
    return parallel.compile_reduce(step, donate_state=True), state


def _start(config: ConfigDict, devices: int) -> None:
    """Configures the process as a run does."""
    split_cpu(devices)
    config.cpu_devices = devices
    keep_freed_memory(pixels_per_device(config))


def tasks(
    config: dict[str, Any], devices: int, train_images: np.ndarray, score_images: np.ndarray
) -> dict[str, Task]:
    """Returns the measured functions by name; each processes one batch."""
    run_config = ConfigDict(config)
    _start(run_config, devices)
    parallel = make_parallel("jit")
    model = make_model(run_config)
    variables = initial_variables(model, run_config.seed)
    # A copy: the step donates its state.
    frozen = parallel.put_replicated(jax.tree.map(jnp.copy, variables))
    step, state = _make_step(run_config, parallel, model, variables)
    held = {"state": state}
    score = parallel.compile_per_example(lambda v, b: score_batch(model, v, b["image"]).image)
    batch, to_score = as_batch(train_images), parallel.put_batch(as_batch(score_images))
    placed = parallel.put_batch(batch)

    def trained(batch: Tree) -> Tree:
        held["state"], metrics = step(held["state"], batch)
        return metrics

    matrix = jax.device_put(np.random.default_rng(0).standard_normal((2048, 2048), np.float32))
    product = jax.jit(jnp.matmul)
    measured: dict[str, Task] = {"matrix product": lambda: product(matrix, matrix)}
    if isinstance(model, PretrainedModel):
        encode = parallel.compile_per_example(lambda v, b: model.features(v, b["image"]))
        features = np.asarray(encode(frozen, placed)).astype(run_config.train.feature_cache_dtype)
        cached = parallel.put_batch({**batch, "features": features})
        measured["encoder"] = lambda: encode(frozen, placed)
        measured["train from features"] = lambda: trained(cached)
        measured["train from images"] = lambda: trained(placed)
    else:
        measured["train"] = lambda: trained(placed)
    return {**measured, "score": lambda: score(frozen, to_score)}


def first_update(config: dict[str, Any], devices: int, images: np.ndarray) -> float:
    """Returns seconds from a config and a batch in memory to the end of the first update."""
    start = time.perf_counter()
    enable_compilation_cache(cache_folder)
    run_config = ConfigDict(config)
    _start(run_config, devices)
    parallel = make_parallel("jit")
    model = make_model(run_config)
    variables = initial_variables(model, run_config.seed)
    step, state = _make_step(run_config, parallel, model, variables)
    _, metrics = step(state, parallel.put_batch(as_batch(images)))
    float(metrics["loss/model"])
    return time.perf_counter() - start


wait = jax.block_until_ready
