"""AE-FLOW: loss and score by hand, the frozen encoder, maps, and refused fields."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from skimage.metrics import structural_similarity

from jaxad import models
from jaxad.errors import UserError
from jaxad.nn import ops
from jaxad.runtime.parallel import make_parallel
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step
from jaxad.types import PretrainedModel

FIELDS = {
    "backbone": "efficientnet_lite0",
    "weights": "",
    "strides": (16,),
    "whitening": "none",
    "num_blocks": 2,
    "subnet": "resnet",
    "permutation": "random",
    "moves": "second",
    "output_scale": 0.1,
    "global_scale": 0.1,
    "decoder_widths": (8, 8, 4),
    "alpha": 0.5,
    "beta": 0.9,
    "reconstruction_loss": "mse",
    "flow_loss": "per_dimension",
    "flow_score": "exp_mean",
    "pixel_map": "residual",
}
SIZE = 32
DIMENSIONS = 2 * 2 * 112  # a sixteenth of the size, 112 channels


def build(axis_name=None, dtype=jnp.float32, channels=1, **changes):
    return models.build(
        "aeflow",
        {**FIELDS, **changes},
        image_shape=(SIZE, SIZE, channels),
        dtype=dtype,
        axis_name=axis_name,
    )


def batch_of(count, channels=1):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.uniform(size=(count, SIZE, SIZE, channels)), jnp.float32),
        "label": jnp.zeros(count, jnp.int32),
        "_valid": jnp.ones(count, bool),
        "_index": jnp.arange(count, dtype=jnp.int32),
    }


@pytest.fixture(scope="module")
def variables():
    """Variables of a fresh model, with flow and decoder moved a little, as by training."""
    actual, rng = initial_variables(build(), 0), np.random.default_rng(1)
    actual["params"] = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.02 * rng.normal(size=leaf.shape), leaf.dtype),
        actual["params"],
    )
    return jax.tree.map(jnp.asarray, actual)


def losses_of(model, variables, batch, *, train=False):
    keys = jax.random.split(jax.random.key(0), len(batch["image"]))
    return jax.jit(functools.partial(model.losses, train=train))(variables, batch, keys)


def passed(model, variables, images):
    """Returns z, z', log-det and reconstruction, computed by the parts."""
    (z,) = model.feature_maps(variables, images)
    (flow,) = model.flows(train=False)
    inner = {name: variables[name]["flow_0"] for name in ("params", "permutation", "batch_stats")}
    z_prime, log_det = flow.apply(inner, z)
    x = model._decoder.apply({"params": variables["params"]["decoder"]}, [z_prime])
    return z, np.asarray(z_prime), np.asarray(log_det).sum(axis=(1, 2)), np.asarray(x)


@pytest.mark.parametrize("flow_loss", ["per_dimension", "sum"])
@pytest.mark.parametrize("reconstruction_loss", ["mse", "ssim"])
def test_the_loss_is_equation_1(variables, reconstruction_loss, flow_loss):
    alpha = 0.25
    model = build(alpha=alpha, reconstruction_loss=reconstruction_loss, flow_loss=flow_loss)
    batch = batch_of(2)
    actual, _ = losses_of(model, variables, batch)
    _, z_prime, log_det, x = passed(model, variables, batch["image"])
    log_density = stats.norm.logpdf(z_prime.astype(np.float64)).sum(axis=(1, 2, 3))
    flow = -(log_density + log_det)
    flow = flow if flow_loss == "sum" else flow / DIMENSIONS
    images = np.asarray(batch["image"])
    if reconstruction_loss == "mse":
        reconstruction = ((images - x) ** 2).mean(axis=(1, 2, 3))
    else:
        reconstruction = 1 - np.asarray([similarity(a, b) for a, b in zip(images, x, strict=True)])
    expected = alpha * flow + (1 - alpha) * reconstruction
    np.testing.assert_allclose(actual["model"], expected, rtol=2e-5)


def similarity(x, y):
    """Returns scikit-image's SSIM with Wang's Gaussian window."""
    return structural_similarity(
        x[..., 0], y[..., 0], gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["exp_mean", "nll_mean", "literal"])
def test_the_score_is_equation_2(variables, mode):
    model = build(flow_score=mode, beta=0.75)
    images = batch_of(3)["image"]
    scores = jax.jit(model.score)(variables, images)
    _, z_prime, log_det, x = passed(model, variables, images)
    log_density = stats.norm.logpdf(z_prime.astype(np.float64)).sum(axis=(1, 2, 3))
    flow = {
        "exp_mean": -np.exp(log_density / DIMENSIONS),
        "nll_mean": -log_density / DIMENSIONS,
        "literal": -np.exp(log_density),  # 0 for every image: it underflows
    }[mode]
    reconstruction = -np.asarray(
        [similarity(a, b) for a, b in zip(np.asarray(images), x, strict=True)]
    )
    expected = 0.75 * flow + 0.25 * reconstruction
    np.testing.assert_allclose(scores.image, expected, rtol=2e-5, atol=1e-6)
    # Another beta needs no new inference.
    parts = scores.components
    again = 0.75 * parts["flow_score"] + 0.25 * parts["reconstruction_score"]
    np.testing.assert_allclose(scores.image, again, rtol=1e-6)
    nll = -(log_density + log_det) / DIMENSIONS
    np.testing.assert_allclose(parts["feature_nll"], nll, rtol=1e-5)
    assert (np.asarray(parts["flow_score"]) == 0).all() == (mode == "literal")


def test_maps_are_shares_of_the_components(variables):
    images = batch_of(2)["image"]
    scores = jax.jit(build(pixel_map="flow").score)(variables, images)
    assert set(scores.maps) == {"residual", "ssim", "flow"}
    assert all(one.shape == (2, SIZE, SIZE) for one in scores.maps.values())
    np.testing.assert_array_equal(scores.pixel, scores.maps["flow"])
    np.testing.assert_allclose(
        np.mean(scores.maps["residual"], axis=(1, 2)), scores.components["mse"], rtol=1e-5
    )
    inner = scores.maps["ssim"][:, 5:-5, 5:-5]
    np.testing.assert_allclose(
        1 - np.mean(inner, axis=(1, 2)), scores.components["ssim"], atol=1e-6
    )
    # Linear interpolation at a whole factor keeps the mean up to the border's share: the nll.
    np.testing.assert_allclose(
        np.mean(scores.maps["flow"], axis=(1, 2)), scores.components["feature_nll"], rtol=0.1
    )


@pytest.mark.parametrize("subnet", ["conv", "resnet"])
@pytest.mark.parametrize("permutation", ["random", "reverse", "orthogonal"])
def test_with_a_whitening_the_decoder_sees_features_again(subnet, permutation):
    """Before the first update, z' is a permutation of the whitened features."""
    model = build(whitening="place", subnet=subnet, permutation=permutation)
    features = np.random.default_rng(0).normal(3, 2, size=(200, DIMENSIONS)).astype(np.float32)
    batches = [{"features": features, "_valid": np.ones(200, bool)}]
    variables = model.prepare(initial_variables(model, 0), batches)
    z = jnp.asarray(features[:2])
    _, x_hat, _ = model._decode(variables, z, train=False)
    decoder = {"params": variables["params"]["decoder"]}
    expected = model._decoder.apply(decoder, model._levels(z))
    np.testing.assert_allclose(x_hat, expected, rtol=1e-3, atol=1e-4)


def test_a_score_does_not_depend_on_its_batch(variables):
    images = batch_of(5)["image"]
    score = jax.jit(build().score)
    together = score(variables, images)
    for number in range(5):
        alone = score(variables, images[number : number + 1])
        np.testing.assert_allclose(alone.image, together.image[number : number + 1], rtol=1e-5)
        np.testing.assert_allclose(alone.pixel, together.pixel[number : number + 1], atol=1e-5)


def test_training_leaves_the_encoder_as_it_was_and_moves_the_flow(variables):
    model, optimisers = build(), {"model": optax.adam(1e-3)}
    state = create_state(variables, optimisers, 0)
    step = jax.jit(functools.partial(train_step, model=model, optimisers=optimisers))
    after, metrics = step(state, batch_of(4))
    for name in ("encoder", "permutation"):
        jax.tree.map(np.testing.assert_array_equal, after.mutable[name], state.mutable[name])
    assert set(after.mutable) == {"encoder", "permutation", "batch_stats"}
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after.params, state.params)
    assert all(jax.tree.leaves(moved))
    assert any(
        np.any(a != b)
        for a, b in zip(
            jax.tree.leaves(after.mutable["batch_stats"]),
            jax.tree.leaves(state.mutable["batch_stats"]),
            strict=True,
        )
    )
    assert np.isfinite(float(metrics["loss/model"]))


def test_features_computed_before_are_the_same_as_those_of_the_image(variables):
    model, batch = build(), batch_of(2)
    cached = {**batch, "features": model.features(variables, batch["image"])}
    assert cached["features"].shape == (2, 2 * 2 * 112)
    direct, _ = losses_of(model, variables, batch)
    actual, _ = losses_of(model, variables, cached)
    np.testing.assert_allclose(actual["model"], direct["model"], rtol=1e-5)
    # Half precision on disk: 11 bits of mantissa.
    half = {**cached, "features": cached["features"].astype(jnp.float16)}
    actual, _ = losses_of(model, variables, half)
    np.testing.assert_allclose(actual["model"], direct["model"], rtol=2e-3)


def test_an_encoder_that_was_not_read_is_nan(variables):
    model = build()
    assert isinstance(model, PretrainedModel)
    fresh = model.init_variables(jax.random.key(0))
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(fresh["encoder"]))
    read = jax.tree.leaves(initial_variables(model, 0)["encoder"])
    assert all(np.isfinite(leaf).all() for leaf in read)
    # The pretrained one is the same for every seed, a random one is not.
    random = build(weights="random")
    first, second = (
        initial_variables(random, seed)["encoder"]["layers"]["stem"] for seed in (0, 1)
    )
    assert np.any(first["kernel"] != second["kernel"])


def test_num_latents_and_decoder_widths():
    model = build()
    assert model.num_latents == DIMENSIONS
    # A half, a quarter and a sixteenth of 112 are 56, 28 and 7: up to the next multiples of 16.
    assert build(decoder_widths=())._decoder.widths == (64, 32, 16)
    wide = build(backbone="wide_resnet50_2", decoder_widths=())
    assert wide._decoder.widths == (512, 256, 64)  # the paper's


def test_colour_and_bfloat16(variables):
    model = build(channels=3, dtype=jnp.bfloat16)
    inner = initial_variables(model, 0)
    scores = jax.jit(model.score)(inner, batch_of(2, channels=3)["image"])
    assert scores.image.dtype == scores.pixel.dtype == jnp.float32
    assert scores.reconstructions["reconstruction"].shape == (2, SIZE, SIZE, 3)


def test_gradients_of_ssim_are_finite_where_images_are_black():
    black = jnp.zeros((1, 16, 16, 1))
    gradient = jax.grad(lambda y: jnp.sum(ops.structural_similarity(black, y)))
    for y in (black, black + 1e-7, black.at[0, :8].set(0.5)):
        assert np.isfinite(gradient(y)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg"}, "config.model.backbone: unknown backbone 'vgg'"),
        ({"subnet": "mlp"}, "config.model.subnet: unknown 'mlp'"),
        ({"alpha": 1.5}, "config.model.alpha: 1.5 is not in [0, 1]"),
        ({"beta": -0.1}, "config.model.beta: -0.1 is not in [0, 1]"),
        ({"flow_score": "log"}, "config.model.flow_score: unknown 'log'; known: exp_mean"),
        ({"pixel_map": "cam"}, "config.model.pixel_map: unknown 'cam'"),
        ({"decoder_widths": (8, 8)}, "with the strides (16,), give 3 numbers"),
        ({"channels": 2}, "config.data.channels: 2"),
    ],
)
def test_refused_fields(changes, message):
    with pytest.raises(UserError) as error:
        build(**changes)
    assert message in str(error.value)


@pytest.mark.long
def test_the_train_step_agrees_in_every_layout():
    """One device, eight with jit, eight with pmap: parameters and batch statistics in float64."""
    small = {"num_blocks": 1, "decoder_widths": (4, 4, 4)}
    with jax.enable_x64(True):
        actual = []
        images = np.random.default_rng(0).uniform(size=(16, SIZE, SIZE, 1))
        batch = {
            "image": images,
            # Computed before: the encoder runs in float32 whatever the rest does.
            "features": np.random.default_rng(1).normal(size=(16, 2, 2, 112)),
            "label": np.zeros(16, np.int32),
            "_valid": np.ones(16, bool),
            "_index": np.arange(16, dtype=np.int32),
        }
        for mode, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
            parallel = make_parallel(mode, jax.devices()[:devices])
            model = build(parallel.axis_name, jnp.float64, **small)
            variables = jax.tree.map(
                lambda x: np.asarray(x, np.float64) if x.dtype == jnp.float32 else np.asarray(x),
                initial_variables(build(**small), 0),
            )
            optimisers = {"model": optax.sgd(0.1)}
            step = parallel.compile_reduce(
                functools.partial(
                    train_step, model=model, optimisers=optimisers, axis_name=parallel.axis_name
                )
            )
            state = parallel.put_replicated(create_state(variables, optimisers, 0))
            state, _ = step(state, parallel.put_batch(batch))
            actual.append(parallel.get_replicated(state))
        for other in actual[1:]:
            for ours, theirs in zip(
                jax.tree.leaves((other.params, other.mutable["batch_stats"])),
                jax.tree.leaves((actual[0].params, actual[0].mutable["batch_stats"])),
                strict=True,
            ):
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
