"""DifferNet and FastFlow: exact likelihoods, features, scores and maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.transform
from scipy import stats
from scipy.ndimage import gaussian_filter

from jaxad import models
from jaxad.errors import UserError
from jaxad.nn import networks
from jaxad.train.state import initial_variables
from jaxad.train.step import example_keys
from jaxad.types import PretrainedModel

SIZE, BATCH = 32, 3
FIELDS = {
    "differnet": {
        "backbone": "efficientnet_lite0", "weights": "random", "strides": (8,), "scales": (1, 2),
        "views": 4, "update_views": 1, "num_blocks": 2, "hidden_widths": (),
    },
    "fastflow": {
        "backbone": "efficientnet_lite0", "weights": "random", "strides": (8, 16),
        "whitening": "none",
        "num_blocks": 2, "subnet": "conv", "image_score": "max",
    },
}  # fmt: skip


def build(name, **changes):
    return models.build(
        name, {**FIELDS[name], **changes}, image_shape=(SIZE, SIZE, 1), dtype=jnp.float32,
        axis_name=None,
    )  # fmt: skip


def batch_of(count=BATCH):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.uniform(size=(count, SIZE, SIZE, 1)), jnp.float32),
        "label": jnp.zeros(count, jnp.int32),
        "_valid": jnp.ones(count, bool),
        "_index": jnp.arange(count, dtype=jnp.int32),
    }


@pytest.fixture(scope="module", params=FIELDS)
def system(request):
    return _ready(request.param)


@functools.cache
def _ready(name):
    """Returns a model, variables moved away from their start (where z' is nearly z), features."""
    model = build(name)
    variables = initial_variables(model, 0)
    keys = iter(jax.random.split(jax.random.key(5), 200))
    params = jax.tree.map(
        lambda leaf: leaf + 0.05 * jax.random.normal(next(keys), leaf.shape), variables["params"]
    )
    variables = {**variables, "params": params}
    return model, variables, jax.jit(model.features)(variables, batch_of()["image"])


def test_they_are_pretrained_systems(system):
    model, variables, _ = system
    assert isinstance(model, PretrainedModel)
    unread = model.init_variables(jax.random.key(0))
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(unread["encoder"]))


def test_features_computed_before_are_the_same_as_those_of_the_image(system):
    model, variables, features = system
    keys = example_keys(jax.random.key(1), jnp.arange(BATCH))
    for train in (True, False):
        with_cache, without = (
            model.losses(variables, batch, keys, train=train)[0]["model"]
            for batch in ({**batch_of(), "features": features}, batch_of())
        )
        np.testing.assert_allclose(with_cache, without, rtol=1e-4)


def test_a_score_does_not_depend_on_its_batch(system):
    model, variables, _ = system
    images, score = batch_of()["image"], jax.jit(model.score)
    together = score(variables, images)
    assert together.pixel.shape == (BATCH, SIZE, SIZE)
    for row in range(BATCH):
        alone = score(variables, images[row : row + 1])
        np.testing.assert_allclose(alone.image[0], together.image[row], rtol=1e-5)


def _flows(model):
    """Returns (name, flow, shape of one z) of each flow of a system."""
    if hasattr(model, "flow"):
        return [("flow", model.flow(train=False), (1, 1, model.num_latents))]
    return [
        (f"flow_{level}", flow, shape)
        for level, (flow, shape) in enumerate(
            zip(model.flows(train=False), model._shapes, strict=True)
        )
    ]


def test_flows_are_undone_and_their_log_det_is_that_of_the_jacobian(system):
    model, variables, _ = system
    for name, flow, shape in _flows(model):
        inner = {one: tree[name] for one, tree in variables.items() if name in tree}
        z = jax.random.normal(jax.random.key(2), (1, *shape))
        z_prime, log_det = flow.apply(inner, z)
        back, inverse_log_det = flow.apply(inner, z_prime, method="inverse")
        np.testing.assert_allclose(back, z, atol=1e-4)
        np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)
        size = z.size
        jacobian = jax.jit(jax.jacobian(lambda z, inner=inner, flow=flow: flow.apply(inner, z)[0]))(
            z
        )
        _, expected = np.linalg.slogdet(np.float64(jacobian).reshape(size, size))
        np.testing.assert_allclose(np.sum(log_det), expected, rtol=1e-4, atol=1e-3)


# --- FastFlow.


def test_fast_flow_s_loss_is_the_nll_of_all_levels():
    model, variables, features = _ready("fastflow")
    keys = example_keys(jax.random.key(1), jnp.arange(BATCH))
    batch = {**batch_of(), "features": features}
    losses, _ = model.losses(variables, batch, keys, train=False)
    total = np.zeros(BATCH)
    for level, (name, flow, shape) in enumerate(_flows(model)):
        z = model._levels(features)[level]
        assert z.shape == (BATCH, *shape)
        # Layer norm: mean 0 and variance 1 of each image's level.
        np.testing.assert_allclose(np.mean(z, axis=(1, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(np.var(z, axis=(1, 2, 3)), 1, rtol=1e-3)
        inner = {one: tree[name] for one, tree in variables.items() if name in tree}
        z_prime, log_det = flow.apply(inner, z)
        density = stats.norm.logpdf(np.float64(z_prime)).sum(axis=(1, 2, 3))
        total -= density + np.sum(log_det, axis=(1, 2))
    dimensions = 4 * 4 * 40 + 2 * 2 * 112
    assert model.num_latents == dimensions
    np.testing.assert_allclose(losses["model"], total / dimensions, rtol=1e-4)


def test_fast_flow_s_map_is_the_nll_of_each_place():
    model, variables, features = _ready("fastflow")
    scores = jax.jit(model.score)(variables, batch_of()["image"])
    np.testing.assert_allclose(scores.image, np.max(scores.pixel, axis=(1, 2)))
    mean = jax.jit(build("fastflow", image_score="mean").score)(variables, batch_of()["image"])
    np.testing.assert_allclose(mean.image, np.mean(scores.pixel, axis=(1, 2)), rtol=1e-4)
    levels = []
    for level, (name, flow, shape) in enumerate(_flows(model)):
        inner = {one: tree[name] for one, tree in variables.items() if name in tree}
        z_prime, _ = flow.apply(inner, model._levels(features)[level])
        density = stats.norm.logpdf(np.float64(z_prime)).mean(axis=-1)
        upsampled = [skimage_resize(one, SIZE) for one in density]
        assert shape[2] == z_prime.shape[-1]
        levels.append(upsampled)
    # The paper's density of each place, of which the map is minus the logarithm.
    expected = -np.log(np.mean(np.exp(levels), axis=0))
    np.testing.assert_allclose(scores.pixel, expected, rtol=1e-3)


def skimage_resize(image, size):
    return skimage.transform.resize(image, (size, size), order=1, mode="edge", anti_aliasing=False)


def test_fast_flow_s_map_ranks_places_far_from_normal():
    """exp(-0.5 |z'|^2 / channels) is 0 in float32 past 14 standard deviations; the map is not."""
    model, variables, _ = _ready("fastflow")
    scores = []
    for factor in (30.0, 60.0):
        far = {**variables, "params": jax.tree.map(lambda p, f=factor: p * f, variables["params"])}
        scores.append(jax.jit(model.score)(far, batch_of(1)["image"]).image[0])
    assert np.isfinite(scores).all() and 200 < scores[0] < scores[1]


# --- DifferNet.


def test_differ_net_s_views_are_rotations_and_its_scales_smaller_images():
    model, variables, _ = _ready("differnet")
    # Black at the border, where a rotation by a quarter of a turn rounds to outside of the image.
    images = jnp.pad(batch_of()["image"][:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1), (0, 0)))
    features = jax.jit(model.features)(variables, images)
    assert features.shape == (BATCH, 4, 2 * 40)
    turned = model._encode(variables, jnp.rot90(images, axes=(1, 2)))
    # A quarter of a turn one way or the other; interpolation at its places is exact.
    actual = [np.abs(turned - features[:, view]).max() / np.abs(turned).max() for view in (1, 3)]
    assert min(actual) < 1e-3 and max(actual) > 0.05
    np.testing.assert_allclose(
        features[:, 0], model._encode(variables, images), rtol=1e-4, atol=1e-4
    )
    half = jax.image.resize(images, (BATCH, SIZE // 2, SIZE // 2, 1), "linear")
    whole_of_half = build("differnet", scales=(1,))._encode(variables, half)
    np.testing.assert_allclose(features[:, 0, 40:], whole_of_half, rtol=1e-3, atol=1e-3)


def test_differ_net_joins_the_means_of_several_strides():
    """Each stride's part is what a system with this stride alone sees, for the same encoder."""
    both, coarse = build("differnet", strides=(4, 8)), build("differnet", strides=(8,))
    fine = build("differnet", strides=(4,))
    encoder = both.pretrained_variables(jax.random.key(0))["encoder"]
    images = batch_of()["image"]
    y = both._encode({"encoder": encoder}, images)
    assert y.shape == (BATCH, 2 * (24 + 40)) and both.num_latents == 2 * (24 + 40)
    of_coarse = coarse._encode({"encoder": encoder}, images)
    # The encoder's scale is that of stride 8; features of stride 4 have another deviation.
    deviations = both._encoder.architecture.deviations
    layers = {name: encoder["layers"][name] for name in fine._encoder.unread_variables["layers"]}
    scale = encoder["scale"] * deviations[8] / deviations[4]
    of_fine = fine._encode({"encoder": {"layers": layers, "scale": scale}}, images)
    expected = [of_fine[:, :24], of_coarse[:, :40], of_fine[:, 24:], of_coarse[:, 40:]]
    np.testing.assert_allclose(y, jnp.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_differ_net_trains_on_one_view_and_scores_the_mean():
    model, variables, features = _ready("differnet")
    keys = example_keys(jax.random.key(1), jnp.arange(BATCH))
    batch = {**batch_of(), "features": features}
    (every, _), (drawn, _) = (model.losses(variables, batch, keys, train=t) for t in (False, True))
    by_view = np.stack(
        [
            model.losses(
                variables, {**batch, "features": features[:, view : view + 1]}, keys, train=False
            )[0]["model"]
            for view in range(4)
        ],
        axis=1,
    )
    np.testing.assert_allclose(every["model"], by_view.mean(axis=1), rtol=1e-5)
    nearest = np.abs(by_view - np.asarray(drawn["model"])[:, None]).min(axis=1)
    np.testing.assert_allclose(nearest, 0, atol=1e-5)


def test_differ_net_trains_on_different_views_of_an_image_in_one_update():
    """With as many as there are, the training loss is the mean over all views."""
    _, variables, features = _ready("differnet")
    model = build("differnet", update_views=4)
    keys = example_keys(jax.random.key(1), jnp.arange(BATCH))
    batch = {**batch_of(), "features": features}
    every, drawn = (model.losses(variables, batch, keys, train=t)[0] for t in (False, True))
    np.testing.assert_allclose(drawn["model"], every["model"], rtol=1e-5)
    without_cache, _ = model.losses(variables, batch_of(), keys, train=True)
    np.testing.assert_allclose(without_cache["model"], every["model"], rtol=1e-3)


def test_differ_net_s_subnets_can_have_its_authors_widths():
    model = build("differnet", hidden_widths=(5, 6, 7))
    shapes = jax.eval_shape(model.init_variables, jax.random.key(0))["params"]["flow"]["subnet_0"]
    kernels = [shapes[f"dense_{layer}"]["kernel"].shape for layer in range(4)]
    assert kernels == [(40, 5), (5, 6), (6, 7), (7, 80)]  # half of 2 x 40 channels in, twice out


def test_differ_net_s_map_is_the_mean_of_its_views_gradients():
    """Each view's gradient is rotated back and smoothed; the map is its magnitude (Section 3.4)."""
    model, variables, _ = _ready("differnet")
    # Black at the border: quarter turns then lose nothing.
    image = jnp.pad(batch_of(1)["image"][:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1), (0, 0)))

    @jax.jit
    def nll(view):
        terms, _ = model._likelihood_terms(
            variables, model._encode(variables, view)[:, None], train=False
        )
        return terms["feature_nll"][0, 0]

    expected = np.zeros((SIZE, SIZE))
    for quarter in range(4):
        view = np.rot90(image, quarter, axes=(1, 2))
        gradient = np.float64(jax.grad(nll)(jnp.asarray(view)))[0, :, :, 0]
        back = gaussian_filter(np.rot90(gradient, -quarter), 1.0, mode="constant", truncate=3)
        expected += np.abs(back) / 4
    pixel = np.asarray(jax.jit(model.score)(variables, image).pixel[0])
    inside = (slice(4, -4), slice(4, -4))  # a quarter turn rounds to outside at the very border
    np.testing.assert_allclose(pixel[inside], expected[inside], rtol=1e-2, atol=1e-3)
    # Along its gradient, a view's nll rises by the gradient's square: autodiff against differences.
    gradient = jax.grad(nll)(image)
    length = float(jnp.linalg.norm(gradient))
    step = 1e-2 * gradient / length
    assert float(nll(image + step) - nll(image - step)) / 2e-2 == pytest.approx(length, rel=0.05)


@pytest.mark.long
def test_differ_net_s_score_takes_the_memory_of_one_view():
    def temporaries(views):
        model = build("differnet", views=views)
        shapes = jax.eval_shape(lambda: model.init_variables(jax.random.key(0)))
        image = jax.ShapeDtypeStruct((2, SIZE, SIZE, 1), jnp.float32)
        compiled = jax.jit(model.score).lower(shapes, image).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(8) < 1.5 * temporaries(2)


# --- Refused fields.


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("fastflow", {"strides": ()}, "config.model.strides"),
        ("fastflow", {"strides": (8, 8)}, "each once"),
        ("fastflow", {"strides": (3,)}, "has features of strides 4, 8, 16, 32"),
        ("fastflow", {"image_score": "sum"}, "unknown 'sum'"),
        ("fastflow", {"subnet": "mlp"}, "unknown 'mlp'"),
        ("differnet", {"strides": (5,)}, "has features of strides 4, 8, 16, 32"),
        ("differnet", {"strides": ()}, "config.model.strides"),
        ("differnet", {"scales": (3,)}, "3 does not divide the image size 32"),
        ("differnet", {"scales": (8,)}, "4 is not a multiple of 8"),
        ("differnet", {"scales": ()}, "config.model.scales"),
        ("differnet", {"views": 0}, "config.model.views"),
        ("differnet", {"update_views": 5}, r"config.model.update_views: 5 is more than .* \(4\)"),
        ("differnet", {"num_blocks": 0}, "config.model.num_blocks"),
        ("differnet", {"backbone": "vgg"}, "unknown backbone 'vgg'"),
    ],
)
def test_refused_fields_are_named(name, changes, words):
    with pytest.raises(UserError, match=words):
        build(name, **changes)


def test_networks_keep_their_variables_side_by_side():
    joined = networks.join({"a": {"params": 1, "state": 2}, "b": {"params": 3}})
    assert joined == {"params": {"a": 1, "b": 3}, "state": {"a": 2}}
    assert networks.state_of(joined) == {"state": {"a": 2}}
