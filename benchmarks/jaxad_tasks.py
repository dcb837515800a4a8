"""jaxad's side of `versus_torch.py`: the functions that training and evaluation call."""

import collections
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
from jaxad.profile.program_costs import program_costs
from jaxad.runtime.compilation_cache import enable_compilation_cache
from jaxad.runtime.parallel import Dispatched, Parallel, make_parallel, split_cpu
from jaxad.storage.home import cache_folder
from jaxad.train.feature_cache import Encoder
from jaxad.train.optim import make_optimisers
from jaxad.train.phases import Phase, make_phases
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step
from jaxad.types import FittedModel, Model, PretrainedModel, Tree

Task = Callable[[], object]

_NUM_STEPS = 10_000
_MATRIX = 2048


def as_batch(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns a batch as the input pipeline does."""
    count = len(images)
    return {
        "image": images,
        "label": np.zeros(count, np.int32),
        "_valid": np.ones(count, bool),
        "_index": np.arange(count, dtype=np.int32),
    }


def update_phases(config: ConfigDict, model: Model) -> dict[str, tuple[Phase, float]]:
    """Returns the kinds of updates in a run: name of the task -> (networks, share of updates).

    The name is `train`, or where there are several kinds `train <networks>`. There is none for a
    fitted model.
    """
    if isinstance(model, FittedModel):
        return {}
    phases = make_phases(config.train.updates, model.networks, _NUM_STEPS)
    counts = collections.Counter(phases.at(step) for step in range(_NUM_STEPS))
    return {
        "train" if len(counts) == 1 else f"train {' and '.join(networks)}": (
            networks, count / _NUM_STEPS,
        )
        for networks, count in counts.items()
    }  # fmt: skip


def make_updates(
    config: ConfigDict, parallel: Parallel, model: Model, variables: Tree
) -> tuple[dict[str, Dispatched], Tree]:
    """Returns the compiled updates by task, and the initial state on the devices."""
    phases = make_phases(config.train.updates, model.networks, _NUM_STEPS)
    optimisers = make_optimisers(config.optim, model, variables["params"], phases)
    updates = {}
    for task, (networks, _) in update_phases(config, model).items():
        step = functools.partial(
            train_step, model=model, axis_name=parallel.axis_name,
            optimisers={name: optimisers[name] for name in networks},
        )  # fmt: skip
        updates[task] = parallel.compile_reduce(step, donate_state=True)
    return updates, parallel.put_replicated(create_state(variables, optimisers, config.seed))


def _start(config: ConfigDict, devices: int) -> Parallel:
    """Configures the process as a run does."""
    split_cpu(devices)
    assert jax.local_device_count() == devices, "JAX started before its devices were set"
    config.cpu_devices = devices
    return make_parallel("jit")


def tasks(
    config: dict[str, Any], devices: int, train_images: np.ndarray, score_images: np.ndarray
) -> dict[str, Task]:
    """Returns the measured functions by name; each processes one batch, or fits all images."""
    run_config = ConfigDict(config)
    parallel = _start(run_config, devices)
    model = make_model(run_config, parallel.axis_name)
    variables = initial_variables(model, run_config.seed)
    # A copy: the step donates its state.
    frozen = parallel.put_replicated(jax.tree.map(jnp.copy, variables))
    score = parallel.compile_per_example(lambda v, b: score_batch(model, v, b["image"]).image)
    to_score = parallel.put_batch(as_batch(score_images))
    matrix = jax.device_put(np.random.default_rng(0).standard_normal((_MATRIX,) * 2, np.float32))
    product = jax.jit(jnp.matmul)
    measured: dict[str, Task] = {"matrix product": lambda: product(matrix, matrix)}
    if isinstance(model, FittedModel):
        measured |= _fit_tasks(run_config, parallel, model, variables, train_images)
    else:
        measured |= _train_tasks(run_config, parallel, model, variables, frozen, train_images)
    return {**measured, "score": lambda: score(frozen, to_score)}


def _train_tasks(
    config: ConfigDict, parallel: Parallel, model: Model, variables: Tree, frozen: Tree,
    images: np.ndarray,
) -> dict[str, Task]:  # fmt: skip
    """Returns the updates of one batch, and the frozen encoder alone."""
    updates, state = make_updates(config, parallel, model, variables)
    held = {"state": state}
    batch = as_batch(images)
    placed = parallel.put_batch(batch)

    def trained(update: Dispatched, batch: Tree) -> Tree:
        held["state"], metrics = update(held["state"], batch)
        return metrics

    if not isinstance(model, PretrainedModel):
        return {
            task: functools.partial(trained, update, placed) for task, update in updates.items()
        }
    encode = parallel.compile_per_example(lambda v, b: model.features(v, b["image"]))
    features = np.asarray(encode(frozen, placed)).astype(config.train.feature_cache_dtype)
    cached = parallel.put_batch({**batch, "features": features})
    update = updates["train"]

    def flops() -> float:
        """Returns the operations of an update on all devices, as XLA counts them."""
        lowered = update.lower(held["state"], cached)
        return (program_costs(lowered.compile()).flops or 0.0) * len(parallel.devices)

    return {
        "encoder": lambda: encode(frozen, placed),
        "train from features": lambda: trained(update, cached),
        "train from images": lambda: trained(update, placed),
        "flops": flops,
    }


def _fit_tasks(
    config: ConfigDict, parallel: Parallel, model: Any, variables: Tree, images: np.ndarray
) -> dict[str, Task]:
    """Returns fits of all images as `jaxad.train.fit` does them, from images and from features.

    Features have the dtype of the feature cache; they are in memory, not on disk.
    """
    size, key = config.data.batch_size, jax.random.key(0)
    batches = [as_batch(images[start : start + size]) for start in range(0, len(images), size)]
    encoder = Encoder(model, variables, parallel.local())

    @functools.cache
    def cached() -> list[Tree]:
        dtype = config.train.feature_cache_dtype
        features = (encoded.astype(dtype) for encoded in encoder.features(batches))
        return [{**batch, "features": z} for batch, z in zip(batches, features, strict=True)]

    def from_images() -> Tree:
        parts = ({**batch, "features": z} for batch in batches for z in encoder.features([batch]))
        return model.fit(variables, parts, key)

    return {
        "encoder": lambda: next(encoder.features(batches[:1])),
        "fit from features": lambda: model.fit(variables, cached(), key),
        "fit from images": from_images,
    }


def first_update(config: dict[str, Any], devices: int, images: np.ndarray) -> float:
    """Returns seconds from a config and a batch in memory to the end of the first update."""
    start = time.perf_counter()
    enable_compilation_cache(cache_folder)
    run_config = ConfigDict(config)
    parallel = _start(run_config, devices)
    model = make_model(run_config, parallel.axis_name)
    variables = initial_variables(model, run_config.seed)
    updates, state = make_updates(run_config, parallel, model, variables)
    _, metrics = next(iter(updates.values()))(state, parallel.put_batch(as_batch(images)))
    float(metrics["grad_norm"])
    return time.perf_counter() - start


wait = jax.block_until_ready
