"""VQ-VAE-2: loss by hand, shapes, codebooks in the train step, and scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from collectives import messages

from jaxad import models
from jaxad.errors import UserError
from jaxad.runtime.parallel import make_parallel
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step

FIELDS = {
    "channels": 8,
    "residual_blocks": 1,
    "residual_channels": 4,
    "num_codes": 12,
    "code_dimension": 4,
    "decay": 0.9,
    "commitment": 0.25,
}


def build(axis_name=None, dtype=jnp.float32, **changes):
    return models.build(
        "vqvae2", {**FIELDS, **changes}, image_shape=(16, 16, 1), dtype=dtype, axis_name=axis_name
    )


def batch_of(count, dtype="float32"):
    rng = np.random.default_rng(0)
    return {
        "image": rng.uniform(size=(count, 16, 16, 1)).astype(dtype),
        "label": np.zeros(count, np.int32),
        "_valid": np.ones(count, bool),
        "_index": np.arange(count, dtype=np.int32),
    }


@pytest.fixture(scope="module")
def fresh():
    model = build()
    return model, jax.jit(model.init_variables)(jax.random.key(0))


def test_loss_is_the_squared_error_and_the_weighted_commitment(fresh):
    model, variables = fresh
    batch = jax.tree.map(jnp.asarray, batch_of(4))
    keys = jax.random.split(jax.random.key(0), 4)
    losses, aux = jax.jit(functools.partial(model.losses, train=True))(variables, batch, keys)
    modules = model.modules(train=False)
    x_hat, top, bottom = jax.jit(modules.apply)(
        variables, batch["image"], batch["_valid"], batch["_index"]
    )
    mse = ((np.asarray(batch["image"]) - np.asarray(x_hat)) ** 2).mean(axis=(1, 2, 3))
    expected = mse + 0.25 * (np.asarray(top.commitment) + np.asarray(bottom.commitment))
    np.testing.assert_allclose(losses["model"], expected, rtol=1e-5)
    assert top.codes.shape == (4, 2, 2)  # H / 8
    assert bottom.codes.shape == (4, 4, 4)  # H / 4
    assert model.num_latents == 4 + 16
    assert set(aux.mutable) == {"codebook"}
    # Of one visit a code: every code as likely as any other.
    np.testing.assert_allclose(aux.terms["perplexity_top"], 12.0, rtol=1e-5)
    assert int(aux.mutable["codebook"]["top"]["updates"]) == 1


def test_noise_plays_no_part(fresh):
    model, variables = fresh
    batch = jax.tree.map(jnp.asarray, batch_of(2))
    step = jax.jit(functools.partial(model.losses, train=False))
    first, second = (
        step(variables, batch, jax.random.split(jax.random.key(seed), 2))[0]["model"]
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(first, second)


def test_score_is_reconstruction_and_commitment_of_each_image_by_itself(fresh):
    model, variables = fresh
    images = jnp.asarray(batch_of(4)["image"])
    scores = jax.jit(model.score)(variables, images)
    parts = scores.components
    expected = parts["mse"] + 0.25 * (parts["commitment_top"] + parts["commitment_bottom"])
    np.testing.assert_allclose(scores.image, expected, rtol=1e-6)
    np.testing.assert_allclose(np.mean(scores.pixel, axis=(1, 2)), parts["mse"], rtol=1e-5)
    alone = jax.jit(model.score)(variables, images[2:3])
    np.testing.assert_allclose(alone.image, scores.image[2:3], rtol=1e-5)
    assert set(scores.reconstructions) == {"reconstruction"}


@pytest.mark.long
def test_the_train_step_updates_codebooks_alike_in_every_layout():
    """One device, eight with jit, eight with pmap: parameters and codebooks in float64."""
    with jax.enable_x64(True):
        actual = []
        for mode, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
            parallel = make_parallel(mode, jax.devices()[:devices])
            model = build(parallel.axis_name, jnp.float64)
            variables = jax.tree.map(
                lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x,
                initial_variables(build(), 0),
            )
            optimisers = {"model": optax.sgd(0.1)}
            step = parallel.compile_reduce(
                functools.partial(
                    train_step, model=model, optimisers=optimisers, axis_name=parallel.axis_name
                )
            )
            state = parallel.put_replicated(create_state(variables, optimisers, 0))
            text = (
                step.lower(state, parallel.put_batch(batch_of(16, "float64"))).compile().as_text()
            )
            if devices > 1:
                # One sum of the gradients; of a codebook no more than its vectors or its counts.
                parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
                largest = max(leaf.size for leaf in jax.tree.leaves(variables["codebook"]))
                sizes = sorted(messages(text))
                assert sizes[-1] > parameters and max(sizes[:-1]) <= largest
            for _ in range(2):  # the first draws the codebooks from the batch
                state, _ = step(state, parallel.put_batch(batch_of(16, "float64")))
            actual.append(parallel.get_replicated(state))
        for other in actual[1:]:
            for ours, theirs in zip(
                jax.tree.leaves((other.params, other.mutable)),
                jax.tree.leaves((actual[0].params, actual[0].mutable)),
                strict=True,
            ):
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert int(actual[0].mutable["codebook"]["bottom"]["updates"]) == 2


def test_training_reconstructs_what_it_is_given():
    """In 200 steps on four images the error falls to a third of the images' variance."""
    model, optimisers = build(), {"model": optax.adam(3e-3)}
    state = create_state(initial_variables(model, 0), optimisers, 0)
    x, y = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 16))
    batch = batch_of(4)
    batch["image"] = np.stack([x, y, x * y, (x > 0.5)])[..., None].astype("float32")
    step = jax.jit(functools.partial(train_step, model=model, optimisers=optimisers))
    for _ in range(200):
        state, metrics = step(state, jax.tree.map(jnp.asarray, batch))
    assert float(metrics["term/mse"]) < batch["image"].var() / 3
    assert float(metrics["term/perplexity_bottom"]) > 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decay": 1.0}, r"decay: 1.0 is not in \[0, 1\)"),
        ({"num_codes": 1}, r"num_codes: 1 is not in \[2, inf\)"),
        ({"commitment": -1.0}, "commitment"),
        ({"channel": 3}, "no such field; it has channels"),
    ],
)
def test_refused_settings(changes, words):
    with pytest.raises(UserError, match=words):
        build(**changes)


def test_refused_image_sizes():
    with pytest.raises(UserError, match="multiple of 8"):
        models.build("vqvae2", FIELDS, image_shape=(20, 20, 1), dtype=jnp.float32, axis_name=None)
