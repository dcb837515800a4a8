"""pchVAE: scores against NumPy and SciPy, parts of the systems, and contracts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxad import models
from jaxad.errors import UserError
from jaxad.models import decomposition as dc

FIELDS = {
    "widths": (8, 8, 8, 8),
    "depths": (0, 1, 1, 1),
    "latent_channels": (4, 1),
    "variance": 0.05,
    "weights": (1.0, 2.0, 2.0, 0.5, 0.25),
}


#: Fields of each system that differ from `FIELDS`.
VARIANTS = {
    "pchvae": {},
    "chvae": {"weights": (2.0, 0.5, 0.25)},
    "highvae": {"weights": (2.0, 0.5), "latent_channels": (4,)},
    "lowvae": {
        "weights": (2.0, 0.25),
        "latent_channels": (1,),
        "widths": (8, 8),
        "depths": (0, 1),
    },
}


def build(system="pchvae", **changes):
    common = {"image_shape": (32, 32, 1), "dtype": jnp.float32, "axis_name": None}
    return models.build(system, {**FIELDS, **VARIANTS[system], **changes}, **common)


def weights_of(model):
    return dict(zip(model.parts.terms, model.weights, strict=True))


def losses(model, variables, images, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(images))
    return jax.jit(model.losses, static_argnames="train")(
        variables, batch_of(images), keys, train=True
    )


def score(model, variables, images):
    return jax.jit(model.score)(variables, images)


def batch_of(images):
    count = len(images)
    return {
        "image": jnp.asarray(images),
        "label": jnp.zeros(count, jnp.int32),
        "_valid": jnp.ones(count, bool),
        "_index": jnp.arange(count, dtype=jnp.int32),
    }


@pytest.fixture(scope="module")
def trained():
    """A model with random variables and some images."""
    model = build()
    variables = jax.jit(model.init_variables)(jax.random.key(1))
    images = np.random.default_rng(0).uniform(size=(6, 32, 32, 1)).astype("float32")
    return model, variables, jnp.asarray(images)


@pytest.mark.parametrize(
    ("system", "terms"),
    [  # of Eq. 9: what is left of it without the other level
        ("pchvae", ("nll_high", "nll", "nll_zero", "kl_high", "kl_low")),
        ("chvae", ("nll", "kl_high", "kl_low")),  # "without the dark blue part and term 3"
        ("highvae", ("nll", "kl_high")),
        ("lowvae", ("nll", "kl_low")),
    ],
)
def test_loss_is_the_weighted_sum_of_the_logged_terms(system, terms):
    model = build(system)
    variables = jax.jit(model.init_variables)(jax.random.key(1))
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    actual, aux = losses(model, variables, images)
    assert actual.keys() == model.networks.keys()
    assert set(aux.terms) == set(terms)
    assert model.parts.terms == terms
    expected = sum(weights_of(model)[name] * np.asarray(aux.terms[name]) for name in terms)
    np.testing.assert_allclose(actual["model"], expected, rtol=1e-6)
    scores = score(model, variables, images)
    elbo = [scores.components[name] for name in terms if name in ("nll", "kl_high", "kl_low")]
    np.testing.assert_allclose(scores.image, sum(elbo), rtol=1e-6)
    assert set(scores.components) == {*terms, "mse"}


def test_systems_have_the_branches_of_figure_1():
    """A branch that a system lacks has no parameters."""
    high = {"high_encoder", "high_posterior", "trunk"}
    low = {"low_encoder", "low_posterior", "low_decoder"}
    expected = {
        "pchvae": {"stem", "tail"} | high | low,
        "chvae": {"stem"} | high | low,  # without the dark blue tail
        "highvae": {"stem", "tail"} | high,
        "lowvae": {"stem"} | low,
    }
    # 32 / 16 = 2 and 32 / 4 = 8: z1 has 2 * 2 * 4, z2 8 * 8 * 1 variables.
    latents = {"pchvae": 16 + 64, "chvae": 16 + 64, "highvae": 16, "lowvae": 64}
    for system, modules in expected.items():
        model = build(system)
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        assert set(variables["params"]) == modules, system
        assert model.num_latents == latents[system]


def test_high_and_low_vae_are_pchvae_s_branches():
    """With pchVAE's parameters High VAE reconstructs x_high, and chVAE x_low where it has no tail.

    Both share the modules, so that a difference between systems is one of parts alone.
    """
    model = build()
    variables = jax.jit(model.init_variables)(jax.random.key(1))
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    whole = score(model, variables, images).reconstructions
    for system, name in {"highvae": "high", "chvae": "low"}.items():
        part = build(system)
        needed = jax.eval_shape(part.init_variables, jax.random.key(0))["params"]
        given = {"params": {module: variables["params"][module] for module in needed}}
        actual = score(part, given, images)
        assert set(actual.reconstructions) == {"reconstruction"}
        np.testing.assert_allclose(
            actual.reconstructions["reconstruction"], whole[name], rtol=1e-5, atol=1e-6
        )


def test_the_low_level_goes_through_the_high_one(trained):
    """x_zero = g1(f1(x_low)): recomputed by hand from the modules."""
    model, variables, images = trained
    modules = model.modules(train=False)
    parts = jax.jit(modules.apply)(variables, images, None)

    def again(m, x):
        return m.decode_high(m.encode_high(m.encode(x)).mean)[1]

    expected = jax.jit(lambda x: modules.apply(variables, x, method=again))(parts.levels.x_low)
    np.testing.assert_allclose(parts.x_zero, expected, rtol=1e-4, atol=1e-5)


def test_latents_lie_where_figure_1_has_them(trained):
    model, variables, images = trained
    parts = jax.jit(model.modules(train=False).apply)(variables, images, None)
    assert parts.levels.posterior_high.mean.shape == (6, 2, 2, 4)  # 32 / 16, 4 channels
    assert parts.levels.posterior_low.mean.shape == (6, 8, 8, 1)  # 32 / 4, 1 channel
    assert parts.levels.x_hat.shape == images.shape


def test_z2_depends_on_z1_through_u(trained):
    """Eq. 8, f2(x, z1): the gradient of z2's mean with respect to the trunk is not zero."""
    model, variables, images = trained

    def z2(variables):
        parts = model.modules(train=False).apply(variables, images, None)
        return jnp.sum(parts.levels.posterior_low.mean)

    gradient = jax.jit(jax.grad(z2))(variables)["params"]
    assert float(optax.tree.norm(gradient["trunk"])) > 0
    assert float(optax.tree.norm(gradient["tail"])) == 0  # dark blue: x_high alone

    # The ablation: f2(x). g2 still sees z1.
    model = build(condition_z2=False)
    variables = jax.jit(model.init_variables)(jax.random.key(1))
    gradient = jax.jit(jax.grad(z2))(variables)["params"]
    assert float(optax.tree.norm(gradient["trunk"])) == 0
    assert float(optax.tree.norm(gradient["stem"])) > 0


def test_score_is_the_negative_elbo(trained):
    model, variables, images = trained
    scores = score(model, variables, images)
    terms = scores.components
    np.testing.assert_allclose(
        scores.image, terms["nll"] + terms["kl_high"] + terms["kl_low"], rtol=1e-6
    )
    residual = np.asarray(images - scores.reconstructions["reconstruction"])[..., 0]
    np.testing.assert_allclose(scores.pixel, residual**2 / (2 * 0.05), rtol=1e-4, atol=1e-6)
    # The pixel map is the likelihood term without its constant.
    constant = 0.5 * 32 * 32 * np.log(2 * np.pi * 0.05)
    np.testing.assert_allclose(scores.pixel.sum(axis=(1, 2)) + constant, terms["nll"], rtol=1e-4)
    np.testing.assert_allclose(terms["mse"], (residual**2).mean(axis=(1, 2)), rtol=1e-4)


def test_image_score_names_the_terms_of_the_score(trained):
    """NumPy: Gaussian log densities of the images and KL divergences of the posteriors."""
    model, variables, images = trained
    parts = jax.jit(model.modules(train=False).apply)(variables, images, None)

    def nll(reconstruction):
        logpdf = scipy.stats.norm.logpdf(images, reconstruction, np.sqrt(0.05))
        return -logpdf.sum(axis=(1, 2, 3))

    def kl(posterior):
        mean, log_variance = np.asarray(posterior.mean), np.asarray(posterior.log_variance)
        return 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=(1, 2, 3))

    levels = parts.levels
    kl_high, kl_low = kl(levels.posterior_high), kl(levels.posterior_low)
    expected = {
        "elbo": nll(levels.x_high + levels.x_low) + kl_high + kl_low,
        "reconstruction": nll(levels.x_high + levels.x_low),
        "high_level": nll(levels.x_high) + kl_high,
        "low_level": kl_low,
    }
    for name, value in expected.items():
        chosen = dataclasses.replace(model, image_score=name)
        scores = score(chosen, variables, images)
        np.testing.assert_allclose(scores.image, value, rtol=1e-4, err_msg=name)
        weights = chosen.score_weights
        assert set(weights.values()) == {1.0}
        np.testing.assert_allclose(
            scores.image, sum(scores.components[term] for term in weights), rtol=1e-6
        )
        # Maps and components stay those of the default.
        default = score(model, variables, images)
        np.testing.assert_array_equal(scores.pixel, default.pixel)
        assert scores.components.keys() == default.components.keys()
    drawn = score(
        dataclasses.replace(model, image_score="low_level", score_samples=3), variables, images
    )
    np.testing.assert_allclose(drawn.image, drawn.components["kl_low"], rtol=1e-6)


@pytest.mark.parametrize(
    ("system", "image_score", "missing"),
    [
        ("chvae", "high_level", "nll_high"),
        ("chvae", "low_level", None),
        ("highvae", "high_level", "nll_high"),  # elbo is this score
        ("highvae", "low_level", "kl_low"),
        ("highvae", "reconstruction", None),
        ("lowvae", "high_level", "kl_high"),
        ("lowvae", "low_level", None),
    ],
)
def test_image_scores_of_parts_that_a_system_lacks_are_refused(system, image_score, missing):
    if missing is None:
        assert build(system, image_score=image_score).score_weights
    else:
        with pytest.raises(UserError, match=f"'{image_score}' needs {missing}, which this"):
            build(system, image_score=image_score)


def test_score_over_draws_is_the_mean_over_them_and_ignores_the_batch(trained):
    """The expectation over the posteriors, estimated by draws."""
    model, variables, images = trained
    drawn = dataclasses.replace(model, score_samples=3)
    scores = score(drawn, variables, images)
    modules = model.modules(train=False)
    parts = [
        jax.jit(modules.apply)(variables, images, jnp.broadcast_to(key, 6))
        for key in jax.random.split(jax.random.key(0), 3)
    ]
    elbo = {"nll": 1.0, "kl_high": 1.0, "kl_low": 1.0}
    expected = np.mean(
        [dc.weighted_sum(dc.loss_terms(part, images, 0.05), elbo) for part in parts], axis=0
    )
    np.testing.assert_allclose(scores.image, expected, rtol=1e-5)
    error = (images - scores.reconstructions["reconstruction"]) ** 2
    np.testing.assert_allclose(scores.components["mse"], error.mean(axis=(1, 2, 3)), rtol=1e-4)
    alone = score(drawn, variables, images[2:3])
    np.testing.assert_allclose(alone.image, scores.image[2:3], rtol=1e-5)
    np.testing.assert_array_equal(score(drawn, variables, images).image, scores.image)
    at_means = score(model, variables, images)
    assert not np.allclose(at_means.image, scores.image, rtol=1e-4)


def test_score_is_deterministic_and_training_is_not(trained):
    model, variables, images = trained
    np.testing.assert_array_equal(
        score(model, variables, images).image, score(model, variables, images).image
    )
    first, second = (losses(model, variables, images, seed)[0]["model"] for seed in (0, 1))
    assert not np.allclose(first, second)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_with_a_norm_scores_ignore_the_batch(norm):
    model = build(norm=norm)
    variables = jax.jit(model.init_variables)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 32, 32, 1))
    np.testing.assert_allclose(
        score(model, variables, images).image[:1],
        score(model, variables, images[:1]).image,
        rtol=1e-6,
    )
    _, aux = losses(model, variables, images)
    assert set(aux.mutable) == ({"batch_stats"} if norm == "batch" else set())


def test_batch_norm_s_running_statistics_are_those_of_images():
    """At fixed parameters they converge to those of the batch, so that scoring matches training."""
    model = build(norm="batch")
    variables = jax.jit(model.init_variables)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (8, 32, 32, 1))
    step = jax.jit(model.losses, static_argnames="train")
    keys = jax.random.split(jax.random.key(2), 8)
    for _ in range(150):  # 0.9^150 of the initial statistics is left
        actual, aux = step(variables, batch_of(images), keys, train=True)
        variables = {"params": variables["params"], **aux.mutable}
    _, evaluated = step(variables, batch_of(images), keys, train=False)
    for name in ("nll_high", "nll", "kl_high", "kl_low"):  # nll_zero is of other images
        np.testing.assert_allclose(evaluated.terms[name], aux.terms[name], rtol=1e-2, err_msg=name)


def test_bfloat16_keeps_parameters_likelihoods_and_scores_in_float32(trained):
    model, variables, images = trained
    half = dataclasses.replace(model, dtype=jnp.bfloat16)
    scores = score(half, variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, scores))} == {jnp.dtype("float32")}
    # bfloat16 has 8 bits of precision: about 1 % after a few layers.
    np.testing.assert_allclose(scores.image, score(model, variables, images).image, rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_shape": (40, 40, 1)}, "multiple of 16"),
        ({"norm": "weight"}, "none, group, layer, batch"),
        ({"variance": 0.0}, r"variance: 0.0 is not in \(0, inf\)"),
        ({"weights": (1.0, 1.0)}, "weights: .* give 5 numbers"),
        ({"widths": (8, 8)}, "widths: .* give 4 numbers"),
        ({"latent_channels": (4, 0)}, "latent_channels: .* each in .1, inf"),
        ({"score_samples": -1}, "score_samples"),
        ({"image_score": "kl"}, "elbo, reconstruction, high_level, low_level"),
    ],
)
def test_refused_settings(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(build(), **changes)
