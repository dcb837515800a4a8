"""Divergences, likelihoods, smoothing and SSIM against SciPy, integration and scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.ndimage
import scipy.stats
from skimage.metrics import structural_similarity

from jaxad.nn import ops


def _keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_kl_of_the_prior_is_zero_and_of_one_shifted_dimension_is_half():
    mean = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    kl = ops.standard_normal_kl(ops.DiagonalGaussian(mean, jnp.zeros((2, 2))))
    np.testing.assert_allclose(kl, [0.0, 0.5], atol=1e-7)  # mean^2 / 2


def test_kl_against_numerical_integration():
    mean, log_variance = 0.7, -0.9
    posterior = scipy.stats.norm(mean, np.exp(0.5 * log_variance))

    def integrand(z):
        return posterior.pdf(z) * (posterior.logpdf(z) - scipy.stats.norm.logpdf(z))

    expected, _ = scipy.integrate.quad(integrand, -12, 12)
    kl = ops.standard_normal_kl(
        ops.DiagonalGaussian(jnp.full((1, 1), mean), jnp.full((1, 1), log_variance))
    )
    np.testing.assert_allclose(kl, [expected], rtol=1e-5)


def test_kl_sums_over_all_dimensions_of_an_example(rng):
    mean, log_variance = rng.normal(size=(2, 3, 4, 5, 2)).astype("float32")
    mean, log_variance = np.moveaxis(mean, -1, 0)[0], np.moveaxis(log_variance, -1, 0)[1]
    expected = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=(1, 2))
    kl = ops.standard_normal_kl(ops.DiagonalGaussian(jnp.array(mean), jnp.array(log_variance)))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)


def test_likelihood_against_scipy(rng):
    x, mean = rng.normal(size=(2, 3, 4, 4, 1)).astype("float32")
    variance = 0.3
    expected = -scipy.stats.norm.logpdf(x, mean, np.sqrt(variance)).sum(axis=(1, 2, 3))
    nll = ops.gaussian_negative_log_likelihood(jnp.array(x), jnp.array(mean), variance)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_samples_have_the_posterior_s_moments():
    count = 20_000
    posterior = ops.DiagonalGaussian(jnp.full((count, 1), 2.0), jnp.full((count, 1), np.log(9.0)))
    samples = ops.reparameterise(posterior, _keys(count))
    # Standard errors: 3 / sqrt(20000) = 0.021 of the mean, 3 / sqrt(40000) = 0.015 of the s.d.
    np.testing.assert_allclose(samples.mean(), 2.0, atol=0.1)
    np.testing.assert_allclose(samples.std(), 3.0, atol=0.07)


def test_without_keys_the_mean_is_taken():
    mean = jnp.array([[1.0, 2.0]])
    sample = ops.reparameterise(ops.DiagonalGaussian(mean, jnp.zeros((1, 2))), None)
    np.testing.assert_array_equal(sample, mean)


def test_noise_of_an_example_depends_on_its_key_alone():
    def sample(keys):
        zeros = jnp.zeros((len(keys), 3))
        return ops.reparameterise(ops.DiagonalGaussian(zeros, zeros), keys)

    keys = _keys(4)
    together = sample(keys)
    np.testing.assert_array_equal(sample(keys[2:]), together[2:])
    assert np.unique(np.asarray(together)).size == together.size


def test_folding_gives_other_keys_and_keeps_none():
    keys = _keys(2)
    folded = ops.fold_in_all(keys, 1)
    assert not np.array_equal(jax.random.key_data(folded), jax.random.key_data(keys))
    assert ops.fold_in_all(None, 1) is None


@pytest.mark.parametrize("deviation", [1.0, 4.0])
def test_gaussian_smoothing_is_scipys(rng, deviation):
    maps = rng.uniform(size=(2, 24, 15)).astype(np.float32)  # narrower than a window of 33
    actual = ops.gaussian_smoothing(jnp.asarray(maps), deviation)
    expected = scipy.ndimage.gaussian_filter(np.float64(maps), (0, deviation, deviation))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images_gaussian_one(rng, channels):
    x = rng.uniform(size=(2, 40, 36, channels)).astype(np.float32)
    y = np.clip(x + 0.1 * rng.normal(size=x.shape), 0, 1).astype(np.float32)
    actual = ops.structural_similarity(jnp.asarray(x), jnp.asarray(y))
    assert actual.shape == (2, 30, 26, channels)
    for ours, a, b in zip(actual, x, y, strict=True):
        mean, full = structural_similarity(
            a.astype(np.float64), b.astype(np.float64), gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1.0, channel_axis=-1, full=True,
        )  # fmt: skip
        np.testing.assert_allclose(ours, full[5:-5, 5:-5], atol=1e-5)
        np.testing.assert_allclose(np.mean(ours), mean, atol=1e-5)


def test_ssim_of_equal_images_is_1_and_its_range_is_fixed():
    x = jax.random.uniform(jax.random.key(0), (1, 16, 16, 1))
    np.testing.assert_allclose(ops.structural_similarity(x, x), 1, atol=1e-5)
    # A range taken from the data would make these two equal.
    y = x.at[0, 3, 3].add(0.2)
    dim = ops.structural_similarity(0.1 * x, 0.1 * y)
    assert float(dim.mean()) > float(ops.structural_similarity(x, y).mean())
