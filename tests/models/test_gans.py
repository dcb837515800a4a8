"""AE, f-AnoGAN and GANomaly: losses and scores by the papers' formulas, and stages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxad import models
from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.errors import UserError
from jaxad.nn import blocks
from jaxad.nn.autoencoder import Encoder, Generator
from jaxad.train.optim import network_settings
from jaxad.train.phases import make_phases
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import example_keys, train_step

SIZE, BATCH = 16, 4
SIZES = {"widths": (8, 8), "depth": 0, "latents": 3, "norm": "batch"}
FIELDS = {
    "ae": SIZES,
    "fanogan": {
        **SIZES, "critic_norm": "none", "bounded_code": False, "gradient_penalty": 10.0,
        "kappa": 0.5,
    },
    "ganomaly": {**SIZES, "adversarial": 2.0, "contextual": 50.0, "encoding": 3.0,
                 "code_distance": "absolute"},
}  # fmt: skip


def build(name, **changes):
    return models.build(
        name, {**FIELDS[name], **changes}, image_shape=(SIZE, SIZE, 1), dtype=jnp.float32,
        axis_name=None,
    )  # fmt: skip


def images_of(count=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(size=(count, SIZE, SIZE, 1)), jnp.float32)


def batch_of(count=BATCH):
    return {
        "image": images_of(count),
        "label": jnp.zeros(count, jnp.int32),
        "_valid": jnp.ones(count, bool),
        "_index": jnp.arange(count, dtype=jnp.int32),
    }


def keys_of(count=BATCH):
    return example_keys(jax.random.key(1), jnp.arange(count))


@pytest.fixture(scope="module", params=FIELDS)
def system(request):
    model = build(request.param)
    return model, initial_variables(model, 0)


def test_a_score_does_not_depend_on_its_batch(system):
    model, variables = system
    images, score = images_of(), jax.jit(model.score)
    together = score(variables, images)
    assert together.pixel.shape == (BATCH, SIZE, SIZE)
    alone = [score(variables, images[row : row + 1]).image[0] for row in range(BATCH)]
    np.testing.assert_allclose(alone, together.image, rtol=1e-5)
    np.testing.assert_allclose(
        together.pixel,
        np.mean((images - together.reconstructions["reconstruction"]) ** 2, axis=-1),
        rtol=1e-5,
    )


def test_an_update_moves_its_networks_and_their_statistics_alone(system):
    """Each network is updated alone, as in a stage."""
    model, variables = system
    optimisers = dict.fromkeys(model.networks, optax.adam(1e-3))
    state = create_state(variables, optimisers, 0)
    for network, pattern in model.networks.items():
        after, _ = jax.jit(
            lambda state, batch, one=network: train_step(
                state, batch, model=model, optimisers={one: optimisers[one]}
            )
        )(state, batch_of())
        mine = pattern.removesuffix("/.*").strip("()").split("|")
        for collection, tree in after.variables.items():
            for name, leaves in tree.items():
                same = jax.tree.map(np.array_equal, leaves, state.variables[collection][name])
                moved = not all(jax.tree.leaves(same))
                if not jax.tree.leaves(leaves):
                    continue
                assert moved == (name in mine or mine == [".*"]), (network, collection, name)


def test_ae_is_scored_by_its_squared_error():
    model = build("ae")
    variables = initial_variables(model, 0)
    scores = jax.jit(model.score)(variables, images_of())
    error = (images_of() - scores.reconstructions["reconstruction"]) ** 2
    np.testing.assert_allclose(scores.image, np.mean(error, axis=(1, 2, 3)), rtol=1e-5)
    losses, _ = model.losses(variables, batch_of(), keys_of(), train=False)
    np.testing.assert_allclose(losses["model"], scores.image, rtol=1e-5)


# --- f-AnoGAN.


@pytest.fixture(scope="module")
def anogan():
    model = build("fanogan")
    variables = initial_variables(model, 0)
    losses, aux = jax.jit(lambda v: model.losses(v, batch_of(), keys_of(), train=False))(variables)
    return model, variables, losses, aux.terms


def test_f_anogan_is_scored_by_izi_f(anogan):
    model, variables, losses, terms = anogan
    scores = jax.jit(model.score)(variables, images_of())
    x, x_hat = images_of(), scores.reconstructions["reconstruction"]
    critic = Encoder((8, 8), 0, "none", False, None, jnp.float32, latents=1)
    inner = {"params": variables["params"]["critic"]}
    (_, of_x), (_, of_x_hat) = critic.apply(inner, x), critic.apply(inner, x_hat)
    residual = np.mean((x - x_hat) ** 2, axis=(1, 2, 3))
    features = np.mean((of_x - of_x_hat) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(scores.components["mse"], residual, rtol=1e-5)
    np.testing.assert_allclose(scores.components["feature_distance"], features, rtol=1e-5)
    np.testing.assert_allclose(scores.image, residual + 0.5 * features, rtol=1e-5)  # kappa .5
    np.testing.assert_allclose(losses["encoder"], scores.image, rtol=1e-5)


def test_the_gan_s_losses_are_wasserstein_s_with_the_penalty_of_every_pair(anogan):
    """Recomputes z, the mixture, D and its slope for each image from the keys."""
    model, variables, losses, _ = anogan
    of_critic, of_generator = (
        {name: tree[network] for name, tree in variables.items() if network in tree}
        for network in ("critic", "generator")
    )
    critic = Encoder((8, 8), 0, "none", False, None, jnp.float32, latents=1)
    generator = Generator(
        (8, 8), 0, "batch", False, None, jnp.float32, image_shape=(SIZE, SIZE, 1), bounded=True
    )

    def judge(x):
        return critic.apply(of_critic, x)[0][0, 0]

    for row in range(BATCH):
        noise, mixture = jax.random.split(keys_of()[row])
        fake = generator.apply(of_generator, jax.random.normal(noise, (1, 3)))
        real = images_of()[row : row + 1]
        share = jax.random.uniform(mixture, (1, 1, 1))[None]
        between = share * real + (1 - share) * fake
        slope = np.linalg.norm(jax.grad(judge)(between))
        expected = judge(fake) - judge(real) + 10 * (slope - 1) ** 2
        np.testing.assert_allclose(losses["critic"][row], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses["generator"][row], -judge(fake), rtol=1e-4, atol=1e-6)


def test_the_critic_s_layer_norm_is_of_each_image_alone_and_a_bounded_code_stays_in_the_unit_cube():
    model = build("fanogan", critic_norm="layer", bounded_code=True)
    variables = jax.tree.map(lambda leaf: 20 * leaf, initial_variables(model, 0))
    x = images_of()
    code, _ = model._encode(variables, x, train=False)
    unbounded, _ = dataclasses.replace(model, bounded_code=False)._encode(variables, x, train=False)
    np.testing.assert_allclose(code, np.tanh(unbounded), rtol=1e-5)
    assert np.abs(unbounded).max() > 1 > np.abs(code).max() - 1e-6
    verdict, features = model._judge(variables, x)
    alone, _ = model._judge(variables, x[1:2])
    np.testing.assert_allclose(alone[0], verdict[1], rtol=1e-4)
    norms = [key for key in variables["params"]["critic"] if key.startswith("Norm")]
    assert norms, "the critic has normalisations with a scale and an offset per channel"
    assert features.shape[0] == BATCH


def test_layer_norm_is_over_positions_and_channels():
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 4, 5, 8)).astype(np.float32)
    module = blocks.Norm("layer", True, None, jnp.float32)
    y = module.apply(module.init(jax.random.key(0), jnp.asarray(x)), jnp.asarray(x))
    mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-6), rtol=1e-4, atol=1e-5)


def test_the_slope_is_the_critic_s_by_finite_differences(anogan):
    model, variables, _, _ = anogan
    with jax.enable_x64(True):
        exact = dataclasses.replace(model, dtype=jnp.float64)
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        x = jnp.asarray(images_of(1), jnp.float64)
        numbers = x.size
        steps = 1e-6 * jnp.eye(numbers).reshape(numbers, *x.shape[1:])
        above, below = (np.asarray(exact._judge(wide, x + sign * steps)[0]) for sign in (1, -1))
        slope = np.linalg.norm((above - below) / 2e-6)
        np.testing.assert_allclose(exact._slope(wide, x)[0], slope, rtol=1e-6)


def test_noise_is_the_example_s_own():
    """z and the penalty's mixture depend on the place in the global batch, not on the layout."""
    model = build("fanogan", norm="none")
    variables = initial_variables(model, 0)
    whole, _ = model.losses(variables, batch_of(), keys_of(), train=True)
    batch = jax.tree.map(lambda leaf: leaf[2:], batch_of())
    part, _ = model.losses(variables, batch, keys_of()[2:], train=True)
    for name, loss in part.items():
        np.testing.assert_allclose(loss, whole[name][2:], rtol=1e-4, err_msg=name)


def test_the_schedule_of_the_config_has_a_gan_and_then_an_encoder():
    config = get_config("fanogan")
    model = make_model(config)
    phases = make_phases(config.train.updates, model.networks, 100)
    assert phases.at(0) == ("critic",) and phases.at(4) == ("generator", "critic")
    assert phases.at(69) == ("generator", "critic") and phases.at(70) == ("encoder",)
    assert [phases.count(name) for name in ("critic", "generator", "encoder")] == [70, 14, 30]
    settings = network_settings(config.optim, "encoder")
    assert (settings.b1, settings.learning_rate) == (0.9, 1e-3)
    assert network_settings(config.optim, "critic").b1 == 0.0


# --- GANomaly.


def test_ganomaly_s_losses_and_score_are_the_paper_s():
    model = build("ganomaly")
    variables = initial_variables(model, 0)
    losses, aux = jax.jit(lambda v: model.losses(v, batch_of(), keys_of(), train=False))(variables)
    scores = jax.jit(model.score)(variables, images_of())
    x, x_hat = images_of(), scores.reconstructions["reconstruction"]

    def apply(network, images, latents=3):
        module = Encoder((8, 8), 0, "batch", False, None, jnp.float32, latents=latents)
        inner = {name: tree[network] for name, tree in variables.items()}
        return module.apply(inner, images)

    z, _ = apply("encoder", x)
    z_hat, _ = apply("second_encoder", x_hat)
    np.testing.assert_allclose(scores.image, np.mean(np.abs(z - z_hat), axis=1), rtol=1e-4)
    (real, f), (fake, f_hat) = (apply("discriminator", one, 1) for one in (x, x_hat))
    expected = (
        2 * np.mean((f - f_hat) ** 2, axis=(1, 2, 3))
        + 50 * np.mean(np.abs(x - x_hat), axis=(1, 2, 3))
        + 3 * np.mean((z - z_hat) ** 2, axis=1)
    )
    np.testing.assert_allclose(losses["generator"], expected, rtol=1e-4)
    # -log sigmoid(D(x)) and -log(1 - sigmoid(D(x^))).
    expected = 0.5 * (np.log1p(np.exp(-real[:, 0])) + np.log1p(np.exp(fake[:, 0])))
    np.testing.assert_allclose(losses["discriminator"], expected, rtol=1e-4)


# --- Refused fields.


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ae", {"widths": ()}, "config.model.widths"),
        ("ae", {"widths": (8,) * 5}, "16 cannot be halved 5 times"),
        ("ae", {"norm": "weight"}, "norm: unknown 'weight'"),
        ("ae", {"norm": "group", "widths": (8, 12)}, "group norm needs multiples of 8"),
        ("ae", {"latents": 0}, "latents: 0 is not in"),
        ("fanogan", {"kappa": -1.0}, "config.model.kappa"),
        ("fanogan", {"gradient_penalty": float("nan")}, "config.model.gradient_penalty"),
        ("ganomaly", {"contextual": -1.0}, "config.model.contextual"),
    ],
)
def test_refused_fields_are_named(name, changes, words):
    with pytest.raises(UserError, match=words):
        build(name, **changes)
