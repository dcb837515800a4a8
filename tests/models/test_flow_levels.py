"""Flows of several levels: the fitted whitening and its share of the likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from jaxad import models
from jaxad.config import get_config
from jaxad.data.sources import DataSet
from jaxad.models.flow_levels import _log_det, _whiten, top_tenth
from jaxad.nn.flow import likelihood_terms
from jaxad.storage.workdir import Workdir
from jaxad.train.loop import train
from jaxad.train.state import initial_variables

SIZE, CHANNELS = 32, {8: 40, 16: 112}


def build(**changes):
    fields = {
        "backbone": "efficientnet_lite0", "weights": "random", "strides": (8, 16),
        "whitening": "place", "num_blocks": 1, "subnet": "conv", "image_score": "mean",
    }  # fmt: skip
    return models.build(
        "fastflow", {**fields, **changes}, image_shape=(SIZE, SIZE, 1), dtype=jnp.float32,
        axis_name=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def features():
    """Features of 300 images, whose places and channels are correlated and far from 0."""
    rng = np.random.default_rng(0)
    size = sum((SIZE // s) ** 2 * c for s, c in CHANNELS.items())
    hidden = rng.normal(size=(300, 60)) @ rng.normal(size=(60, size)) / 8
    return (hidden + rng.normal(size=(300, size)) + 5).astype(np.float32)


@pytest.fixture(scope="module")
def prepared(features):
    """A model and its variables after the whitening was fitted, in two parts with padding."""
    model = build()
    valid = np.ones(200, bool)
    valid[100:] = False
    parts = [
        {"features": features[:200], "_valid": np.ones(200, bool)},
        {"features": np.concatenate([features[200:], 1e3 + features[:100]]), "_valid": valid},
    ]
    return model, model.prepare(initial_variables(model, 0), parts)


def test_the_whitened_training_features_are_standard_normal_at_every_place(prepared, features):
    model, variables = prepared
    for level, z in enumerate(model._levels(jnp.asarray(features))):
        u = _whiten(variables["whitening"][f"flow_{level}"], z)
        u = np.asarray(u).reshape(300, -1, u.shape[-1])
        np.testing.assert_allclose(u.mean(axis=0), 0, atol=1e-3)
        for place in range(u.shape[1]):
            # PaDiM's ridge of .01 on variances of about 2 leaves a little less than 1.
            np.testing.assert_allclose(np.cov(u[:, place].T), np.eye(u.shape[-1]), atol=0.05)


def test_the_whitened_density_is_that_of_a_gaussian_of_each_place(prepared, features):
    """Without a flow behind it, the likelihood is SciPy's, in the units of the features."""
    model, variables = prepared
    z = model._levels(jnp.asarray(features[:5]))[1]
    u, log_det = _whiten(variables["whitening"]["flow_1"], z), model._fitted_log_det(variables, 1)
    terms = likelihood_terms([(u, jnp.broadcast_to(log_det, u.shape[:3]))])
    everything = np.asarray(model._levels(jnp.asarray(features))[1], np.float64)
    expected = np.zeros(5)
    for row in range(SIZE // 16):
        for column in range(SIZE // 16):
            place = everything[:, row, column]
            covariance = np.cov(place.T) + 0.01 * np.eye(place.shape[1])
            gaussian = multivariate_normal(place.mean(axis=0), covariance)
            expected -= gaussian.logpdf(place[:5]) / u[0].size
    np.testing.assert_allclose(terms["feature_nll"], expected, rtol=1e-3)


def test_top_tenth_is_the_density_of_the_least_likely_places():
    """SciPy's normal density at each place; of 25 and 4 places, a tenth is 3 and 1."""
    rng = np.random.default_rng(0)
    sizes = [(5, 5, 6), (2, 2, 10)]
    transformed = [(rng.normal(size=(2, *size)), rng.normal(size=(2, *size[:2]))) for size in sizes]
    expected = np.zeros(2)
    for (z, log_det), count in zip(transformed, (3, 1), strict=True):
        nll = -(norm.logpdf(z).sum(axis=-1) + log_det).reshape(2, -1)
        expected += np.sort(nll, axis=1)[:, -count:].mean(axis=1) / (6 + 10)
    inputs = [(jnp.asarray(z, jnp.float32), jnp.asarray(d, jnp.float32)) for z, d in transformed]
    np.testing.assert_allclose(top_tenth(inputs), expected, rtol=1e-5)


def test_the_log_det_is_that_of_the_jacobian(prepared):
    _, variables = prepared
    step = jax.tree.map(lambda leaf: leaf[:1, :1], variables["whitening"]["flow_0"])
    z = jnp.asarray(np.random.default_rng(1).normal(size=(1, 1, 1, 40)), jnp.float32)
    jacobian = jax.jacobian(lambda z: _whiten(step, z))(z).reshape(40, 40)
    expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(_log_det(step)[0, 0, 0], expected, rtol=1e-4)


def test_without_whitening_nothing_is_fitted():
    model = build(whitening="none")
    variables = initial_variables(model, 0)
    assert "whitening" not in variables
    assert model.prepare(variables, iter(())) is variables


def test_training_fits_the_whitening_once_and_a_resumed_run_keeps_it(tmp_path):
    config = get_config("fastflow:smoke")
    config.model.whitening = "place"
    config.train.feature_cache = "off"
    config.train.num_epochs, config.train.checkpoint_every_steps = 0.4, 1
    data_set = DataSet(config.data)
    assert train(config, Workdir(tmp_path / "run"), data_set)
    from jaxad.detector.restored import restore

    first = restore(tmp_path / "run", 1).variables["whitening"]
    last = restore(tmp_path / "run").variables["whitening"]
    jax.tree.map(np.testing.assert_array_equal, first, last)
    for level in first.values():
        assert np.abs(level["mean"]).max() > 0
        assert not np.allclose(level["matrix"], np.eye(level["matrix"].shape[-1]))


def test_training_starts_from_the_density_of_the_fitted_gaussians(prepared, features):
    """The flow behind the whitening starts as a permutation of the channels."""
    model, variables = prepared
    z = jnp.asarray(features[:5])
    transformed, _ = model._transform(variables, z, train=False)
    for level, (z_prime, share) in enumerate(transformed):
        step = variables["whitening"][f"flow_{level}"]
        u, log_det = _whiten(step, model._levels(z)[level]), _log_det(step)
        np.testing.assert_allclose(np.sort(z_prime), np.sort(u), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(share, jnp.broadcast_to(log_det, share.shape), rtol=1e-4)
