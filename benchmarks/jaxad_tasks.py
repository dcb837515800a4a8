"""What `versus_torch.py` measures of jaxad: the functions that training and evaluation call."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxad.config.model import make_model
from jaxad.detector.restored import score_batch
from jaxad.runtime.compilation_cache import enable_compilation_cache
from jaxad.runtime.malloc import keep_freed_memory
from jaxad.runtime.parallel import Parallel, make_parallel, split_cpu
from jaxad.storage.home import cache_folder
from jaxad.train import experiment
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step
from jaxad.types import Model, PretrainedModel, Tree

Task = Callable[[], object]


def as_batch(images: np.ndarray) -> dict[str, np.ndarray]:
    """As the pipeline gives it."""
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
    """The compiled update and the state before the first one, on the devices."""
    phases = experiment.phases(config, model, num_steps=10_000)
    optimisers = experiment.optimisers(config, model, variables["params"], phases)
    step = functools.partial(train_step, model=model, optimisers=optimisers)
    state = parallel.put_replicated(create_state(variables, optimisers, config.seed))
    return parallel.compile_reduce(step, donate_state=True), state


def _start(config: ConfigDict, devices: int) -> None:
    """As `jaxad.run` starts."""
    split_cpu(devices)
    config.cpu_devices = devices
    keep_freed_memory(experiment.pixels_at_once(config))


def tasks(
    config: dict[str, Any], devices: int, train_images: np.ndarray, score_images: np.ndarray
) -> dict[str, Task]:
    """What is measured, by name; each is one batch."""
    one = ConfigDict(config)
    _start(one, devices)
    parallel = make_parallel("jit")
    model = make_model(one)
    variables = initial_variables(model, one.seed)
    # A copy: the step donates its state.
    frozen = parallel.put_replicated(jax.tree.map(jnp.copy, variables))
    step, state = _make_step(one, parallel, model, variables)
    held = {"state": state}
    score = parallel.compile_per_example(lambda v, b: score_batch(model, v, b["image"]).image)
    batch, to_score = as_batch(train_images), parallel.put_batch(as_batch(score_images))
    placed = parallel.put_batch(batch)

    def trained(batch: Tree) -> Tree:
        held["state"], metrics = step(held["state"], batch)
        return metrics

    matrix = jax.device_put(np.random.default_rng(0).standard_normal((2048, 2048), np.float32))
    product = jax.jit(jnp.matmul)
    found: dict[str, Task] = {"matrix product": lambda: product(matrix, matrix)}
    if isinstance(model, PretrainedModel):
        encode = parallel.compile_per_example(lambda v, b: model.features(v, b["image"]))
        features = np.asarray(encode(frozen, placed)).astype(one.train.feature_cache_dtype)
        cached = parallel.put_batch({**batch, "features": features})
        found["encoder"] = lambda: encode(frozen, placed)
        found["train from features"] = lambda: trained(cached)
        found["train from images"] = lambda: trained(placed)
    else:
        found["train"] = lambda: trained(placed)
    return {**found, "score": lambda: score(frozen, to_score)}


def first_update(config: dict[str, Any], devices: int, images: np.ndarray) -> float:
    """Seconds from a config and a batch in memory to the end of the first update."""
    start = time.perf_counter()
    enable_compilation_cache(cache_folder)
    one = ConfigDict(config)
    _start(one, devices)
    parallel = make_parallel("jit")
    model = make_model(one)
    step, state = _make_step(one, parallel, model, initial_variables(model, one.seed))
    _, metrics = step(state, parallel.put_batch(as_batch(images)))
    float(metrics["loss/model"])
    return time.perf_counter() - start


wait = jax.block_until_ready
