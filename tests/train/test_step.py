"""The training step: the same update in every layout, with one all-reduce of gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from collectives import messages

from jaxad import models
from jaxad.runtime.parallel import make_parallel
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import example_keys, train_step, validation_sums
from jaxad.types import LossAux

BATCH = 16


def build(norm="none", dtype=jnp.float32, axis_name=None):
    fields = {
        "widths": (8, 8, 8, 8),
        "depths": (0, 0, 1, 1),
        "latent_channels": (2, 1),
        "variance": 0.05,
        "weights": (1.0, 1.0, 1.0, 1.0, 1.0),
        "norm": norm,
    }
    return models.build("pchvae", fields, image_shape=(16, 16, 1), dtype=dtype, axis_name=axis_name)


def make_batch(dtype=np.float32):
    rng = np.random.default_rng(0)
    return {
        "image": rng.uniform(size=(BATCH, 16, 16, 1)).astype(dtype),
        "label": np.zeros(BATCH, np.int32),
        "_valid": np.ones(BATCH, bool),
        "_index": np.arange(BATCH, dtype=np.int32),
    }


def run_step(mode, num_devices, norm, dtype):
    """Returns state and metrics after one step, and the HLO text of the step."""
    parallel = make_parallel(mode, jax.devices()[:num_devices])
    model = build(norm, dtype, parallel.axis_name)
    variables = jax.tree.map(lambda x: x.astype(dtype), initial_variables(build(norm), 0))
    # SGD with rate 1: the change of the parameters is the gradient.
    optimisers = {"model": optax.sgd(1.0)}
    state = create_state(variables, optimisers, seed=3)
    step = parallel.compile_reduce(
        functools.partial(
            train_step, model=model, optimisers=optimisers, axis_name=parallel.axis_name
        )
    )
    arguments = parallel.put_replicated(state), parallel.put_batch(make_batch(dtype))
    text = step.lower(*arguments).compile().as_text()
    after, metrics = jax.tree.map(np.asarray, parallel.get_replicated(step(*arguments)))
    return after, metrics, text


LAYOUTS = [("jit", 1), ("jit", 8), ("pmap", 8)]


@pytest.mark.long
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_one_device_eight_with_jit_and_eight_with_pmap_agree_in_float64(norm):
    with jax.enable_x64(True):
        results = [run_step(mode, count, norm, np.float64) for mode, count in LAYOUTS]
    reference, reference_metrics, _ = results[0]
    assert reference_metrics["loss/model"].dtype == np.float64
    for after, metrics, _ in results[1:]:
        for name, value in reference_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-10, err_msg=name)
        # Parameters differ from their common start by the gradient.
        for ours, theirs in zip(
            jax.tree.leaves(after.params), jax.tree.leaves(reference.params), strict=True
        ):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * scale)
        for ours, theirs in zip(
            jax.tree.leaves(after.mutable), jax.tree.leaves(reference.mutable), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert bool(reference.mutable) == (norm == "batch")


@pytest.mark.parametrize("norm", [pytest.param("none", marks=pytest.mark.long), "batch"])
def test_layouts_agree_in_float32_and_one_sum_of_gradients_crosses_devices(norm):
    results = [run_step(mode, count, norm, np.float32) for mode, count in LAYOUTS]
    losses = [metrics["loss/model"] for _, metrics, _ in results]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)

    parameters = sum(leaf.size for leaf in jax.tree.leaves(results[0][0].params))
    for _, metrics, text in results[1:]:
        largest, *others = sorted(messages(text), reverse=True)
        # Gradients, loss and terms (all metrics but the norm), and the number of examples.
        assert largest == parameters + len(metrics) - 1 + 1
        # Batch norm's mean and mean square of at most 16 channels, in both directions.
        assert all(numbers <= 2 * 16 for numbers in others)
        assert bool(others) == (norm == "batch")
    _, _, alone = results[0]
    assert messages(alone) == []


@pytest.mark.parametrize("saving", [{"accumulate": 4}, {"rematerialise": True}])
def test_options_that_save_memory_give_the_same_update(saving):
    """Equal in float64 up to rounding, also the noise, which depends only on the example."""
    with jax.enable_x64(True):
        model = build(dtype=np.float64)
        variables = jax.tree.map(lambda x: x.astype(np.float64), initial_variables(build(), 0))
        optimisers = {"model": optax.sgd(1.0)}
        found = []
        for settings in ({}, saving):
            step = functools.partial(train_step, model=model, optimisers=optimisers, **settings)
            batch = make_batch(np.float64)
            batch["_valid"][-3:] = False
            state = create_state(variables, optimisers, seed=3)
            found.append(jax.jit(step)(state, jax.tree.map(jnp.asarray, batch)))
        for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.long
def test_parts_need_less_memory():
    """Only a quarter of the activations is held at once."""
    model, optimisers = build(), {"model": optax.sgd(1.0)}
    state = create_state(initial_variables(model, 0), optimisers, seed=3)
    sizes = []
    for parts in (1, 4):
        step = functools.partial(train_step, model=model, optimisers=optimisers, accumulate=parts)
        compiled = jax.jit(step).lower(state, make_batch()).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.6 * sizes[0]


def test_noise_of_an_example_follows_its_place_in_the_global_batch():
    whole = example_keys(jax.random.key(0), jnp.arange(8))
    part = example_keys(jax.random.key(0), jnp.arange(4, 8))
    np.testing.assert_array_equal(jax.random.key_data(whole)[4:], jax.random.key_data(part))


@dataclasses.dataclass(frozen=True)
class TwoNetworks:
    """A model with two networks of one parameter each, whose losses depend on both."""

    image_shape: tuple[int, int, int] = (1, 1, 1)
    num_latents: int = 0

    @property
    def score_weights(self):
        return {}

    @property
    def networks(self):
        return {"generator": "generator/.*", "critic": "critic/.*"}

    def init_variables(self, key):
        one = jnp.ones(())
        return {"params": {"generator": {"w": one}, "critic": {"w": one}}}

    def losses(self, variables, batch, keys, *, train):
        params = variables["params"]
        g, c = params["generator"]["w"], params["critic"]["w"]
        x = batch["image"][:, 0, 0, 0]
        losses = {"generator": x * g * c * 3.0, "critic": -x * g * c * 5.0}
        terms = {"generator/height": x, "critic/slope": x, "both": x}
        mutable = {name: tree for name, tree in variables.items() if name != "params"}
        return losses, LossAux(terms, jax.tree.map(lambda leaf: leaf + 1, mutable))

    def score(self, variables, images):
        raise AssertionError("not used")


def small_batch(values, valid):
    count = len(values)
    return {
        "image": jnp.asarray(values, jnp.float32).reshape(count, 1, 1, 1),
        "label": jnp.zeros(count, jnp.int32),
        "_valid": jnp.asarray(valid),
        "_index": jnp.arange(count, dtype=jnp.int32),
    }


def test_each_network_follows_its_own_loss_and_padding_is_ignored():
    model, optimisers = TwoNetworks(), dict.fromkeys(("generator", "critic"), optax.sgd(0.1))
    state = create_state(model.init_variables(jax.random.key(0)), optimisers, 0)
    batch = small_batch([1.0, 3.0, 1e3], [True, True, False])  # mean of valid x is 2
    after, metrics = jax.jit(functools.partial(train_step, model=model, optimisers=optimisers))(
        state, batch
    )
    # d(3 x g c)/dg = 6 and d(-5 x g c)/dc = -10 at g = c = 1, mean x = 2.
    np.testing.assert_allclose(after.params["generator"]["w"], 1 - 0.1 * 6, rtol=1e-6)
    np.testing.assert_allclose(after.params["critic"]["w"], 1 + 0.1 * 10, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/generator"], 6.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/critic"], -10.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], np.hypot(6, 10), rtol=1e-6)
    assert int(after.step) == 1


def test_networks_that_are_not_trained_do_not_change():
    model = TwoNetworks()
    optimisers = dict.fromkeys(("generator", "critic"), optax.adam(0.1))
    variables = {
        **model.init_variables(0),
        "statistics": {"generator": {"m": 1.0}, "critic": {"m": 1.0}},
    }
    state = create_state(jax.tree.map(jnp.asarray, variables), optimisers, 0)
    after, metrics = train_step(
        state, small_batch([1.0], [True]), model=model, optimisers={"critic": optimisers["critic"]}
    )
    assert float(after.params["generator"]["w"]) == 1 != float(after.params["critic"]["w"])
    assert float(after.mutable["statistics"]["generator"]["m"]) == 1
    assert float(after.mutable["statistics"]["critic"]["m"]) == 2
    for ours, theirs in zip(
        jax.tree.leaves(after.opt_state["generator"]),
        jax.tree.leaves(state.opt_state["generator"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    # A term of the other network is not logged; one of no network is.
    assert set(metrics) == {"loss/critic", "term/critic/slope", "term/both", "grad_norm"}


def test_validation_sums_count_valid_examples_once():
    model = TwoNetworks()
    state = create_state(model.init_variables(jax.random.key(0)), {}, 0)
    batch = small_batch([1.0, 3.0, np.nan], [True, True, False])
    sums, count = validation_sums(state, batch, model=model)
    assert float(count) == 2
    np.testing.assert_allclose(sums["loss/generator"], 12.0)  # 3 (1 + 3)
