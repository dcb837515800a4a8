"""PaDiM against NumPy and SciPy, and cases with known results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
from fitted_inputs import batches_of, images_of
from scipy.spatial.distance import mahalanobis

from jaxad import models
from jaxad.errors import UserError
from jaxad.models.place_gaussians import PlaceGaussians
from jaxad.train.state import initial_variables
from jaxad.types import FittedModel, PretrainedModel

SIZE, CHANNELS, PLACES = 32, 6, 4 * 4
FIELDS = {
    "backbone": "efficientnet_lite0",
    "weights": "random",
    "strides": (8, 16),
    "num_channels": CHANNELS,
}


def build(**changes):
    common = {"image_shape": (SIZE, SIZE, 1), "dtype": jnp.float32, "axis_name": None}
    return models.build("padim", {**FIELDS, **changes}, **common)


@functools.cache
def ready():
    """Returns a model, its variables after a fit to ten images, and the images' features."""
    model = build()
    variables = initial_variables(model, 0)
    features = np.asarray(jax.jit(model.features)(variables, images_of(10, SIZE)))
    return model, model.fit(variables, batches_of(features), jax.random.key(1)), features


def vectors_by_hand(features, chosen):
    """Returns the chosen channels of both levels, the coarser one repeated; float64 [B, 16, 6]."""
    fine = np.float64(features[:, : 4 * 4 * 40]).reshape(-1, 4, 4, 40)
    coarse = np.float64(features[:, 4 * 4 * 40 :]).reshape(-1, 2, 2, 112)
    repeated = coarse.repeat(2, axis=1).repeat(2, axis=2)
    joined = np.concatenate([fine, repeated], axis=-1)
    return joined[..., np.asarray(chosen)].reshape(-1, PLACES, CHANNELS)


def test_it_is_fitted_and_pretrained():
    model, variables, _ = ready()
    assert isinstance(model, FittedModel) and isinstance(model, PretrainedModel)
    shapes = jax.eval_shape(model.init_variables, jax.random.key(0))
    described = jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), variables)
    assert described == jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), shapes)
    assert model.num_latents == PLACES * CHANNELS
    chosen = np.asarray(variables["channels"]["chosen"])
    assert len(set(chosen.tolist())) == CHANNELS and (chosen >= 0).all() and (chosen < 152).all()


def test_scores_and_maps_are_mahalanobis_distances():
    model, variables, features = ready()
    chosen = variables["channels"]["chosen"]
    normal = vectors_by_hand(features, chosen)
    images = images_of(4, SIZE, seed=5)
    unseen = vectors_by_hand(np.asarray(model.features(variables, images)), chosen)
    actual = jax.jit(model.score)(variables, images)
    distances = np.empty((4, PLACES))
    for place in range(PLACES):
        covariance = np.cov(normal[:, place], rowvar=False) + 0.01 * np.eye(CHANNELS)
        inverse, mean = np.linalg.inv(covariance), normal[:, place].mean(axis=0)
        distances[:, place] = [mahalanobis(one, mean, inverse) for one in unseen[:, place]]
    np.testing.assert_allclose(actual.image, distances.max(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(actual.image, actual.components["distance"])
    np.testing.assert_allclose(
        actual.components["mean_distance"], distances.mean(axis=1), rtol=1e-4
    )
    maps = [
        scipy.ndimage.gaussian_filter(
            skimage.transform.resize(
                one.reshape(4, 4), (SIZE, SIZE), order=1, mode="edge", anti_aliasing=False
            ),
            4.0,
        )
        for one in distances
    ]
    np.testing.assert_allclose(actual.pixel, maps, rtol=1e-4)
    assert actual.reconstructions == {}


def test_batches_and_padding_play_no_part():
    model, variables, features = ready()
    again = model.fit(variables, batches_of(features, size=7), jax.random.key(2))
    for name, leaf in variables["params"].items():
        np.testing.assert_allclose(again["params"][name], leaf, rtol=1e-5, atol=1e-6)
    images, score = images_of(4, SIZE, seed=5), jax.jit(model.score)
    alone = score(variables, images[2:3])
    np.testing.assert_allclose(alone.image, score(variables, images).image[2:3], rtol=1e-5)


def test_the_gaussian_of_four_points_is_known():
    # x = -1, 1 and y = -2, 2 around (10, 20): variances 2/3 and 8/3 of four points, no covariance.
    points = np.array([[9, 20], [11, 20], [10, 18], [10, 22]], np.float32)[:, None]
    moments = PlaceGaussians(1, 2)
    moments.add(points[:1])
    moments.add(points[1:1])
    moments.add(points[1:])
    mean, whitening = moments.whiten()
    np.testing.assert_allclose(mean, [[10, 20]], rtol=1e-6)
    expected = np.diag([(2 / 3 + 0.01) ** -0.5, (8 / 3 + 0.01) ** -0.5])
    np.testing.assert_allclose(whitening[0], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moments.factors()[0], np.linalg.inv(expected), rtol=1e-6)


def test_covariances_keep_their_digits_where_means_are_large(rng):
    """Sums of squares around 1e14 leave two digits of a variance of 0.7 in float64."""
    vectors = (1e7 + np.float32(rng.integers(0, 3, size=(50, 300, 2)))).astype(np.float32)
    moments = PlaceGaussians(300, 2)  # more than one part
    for start in range(0, 50, 8):
        moments.add(vectors[start : start + 8])
    mean, whitening = moments.whiten()
    np.testing.assert_allclose(mean, np.float64(vectors).mean(axis=0), rtol=1e-7)
    for place in (0, 255, 256, 299):
        covariance = np.cov(np.float64(vectors[:, place]), rowvar=False) + 0.01 * np.eye(2)
        factor = np.linalg.inv(np.float64(whitening[place]))
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-4, atol=1e-5)


def test_a_single_image_has_the_ridge_alone():
    moments = PlaceGaussians(1, 2)
    moments.add(np.ones((1, 1, 2), np.float32))
    _, whitening = moments.whiten()
    np.testing.assert_allclose(whitening[0], 10 * np.eye(2), rtol=1e-6)  # 0.01 ** -0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 0}, r"config.model.num_channels: 0 is not in \[1, inf\)"),
        ({"num_channels": 153}, "num_channels: 153 is more than the 152 channels"),
        ({"strides": (8, 8)}, "each once"),
    ],
)
def test_refused_fields(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
