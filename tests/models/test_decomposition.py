"""Equations of the decomposition: loss terms against NumPy, and the paper's PCA argument."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
import scipy.stats

from jaxad.models import decomposition as dc
from jaxad.nn import ops


def test_terms_are_those_of_equation_9(rng):
    x, high, low, zero = rng.normal(size=(4, 3, 8, 8, 1)).astype("float32")
    mean, log_variance = rng.normal(size=(2, 3, 5)).astype("float32")
    levels = dc.Levels(
        x_high=jnp.array(high),
        x_low=jnp.array(low),
        posterior_high=ops.DiagonalGaussian(jnp.array(mean), jnp.array(log_variance)),
        posterior_low=ops.DiagonalGaussian(jnp.array(2 * mean), jnp.array(log_variance)),
    )
    parts = dc.Decomposition(levels, jnp.array(zero))
    variance = 0.2
    terms = dc.loss_terms(parts, jnp.array(x), variance)

    def nll(value, center):
        logpdf = scipy.stats.norm.logpdf(value, center, np.sqrt(variance))
        return -logpdf.sum(axis=(1, 2, 3))

    def kl(center):
        return 0.5 * (center**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)

    expected = {
        "nll_high": nll(x, high),
        "nll": nll(x, high + low),
        "nll_zero": nll(0.0, zero),  # the third term wants a zero image
        "kl_high": kl(mean),
        "kl_low": kl(2 * mean),
    }
    assert tuple(terms) == dc.TERMS
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)
    weights = dict(zip(dc.TERMS, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    total = sum(weight * expected[name] for name, weight in weights.items())
    np.testing.assert_allclose(dc.weighted_sum(terms, weights), total, rtol=1e-4)


class LinearBranches:
    """The linear autoencoder of Eq. 2 as `Branches`: one matrix pair per level, z = mean."""

    parts = dc.Parts()

    def __init__(self, weights):
        self.weights = weights

    def _posterior(self, mean):
        return ops.DiagonalGaussian(mean, jnp.zeros_like(mean))

    def encode(self, x):
        return x

    def encode_high(self, features):
        return self._posterior(features @ self.weights["encode_high"])

    def decode_high(self, z1):
        x_high = z1 @ self.weights["decode_high"]
        return x_high, x_high

    def encode_low(self, features, u):
        return self._posterior(features @ self.weights["encode_low"])

    def decode_low(self, z2, u):
        return z2 @ self.weights["decode_low"]


def test_with_linear_modules_the_branches_recover_the_pca_subspaces():
    """The paper's argument (Eqs. 1, 2, 6), through this package's loss with its third term.

    The high branch must find the leading principal subspace and the low branch the next one. An
    autoencoder's matrices are not unique but the spaces that its decoders span are.
    """
    size, rank, count = 12, 2, 4000
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    deviations = np.array([3.0, 2.6, 1.6, 1.4] + [0.3] * (size - 4))
    data = (rng.normal(size=(count, size)) * deviations) @ basis.T
    data -= data.mean(axis=0)
    x = jnp.asarray(data, jnp.float32)

    def loss(weights):
        parts = dc.decompose(LinearBranches(weights), x, None)
        terms = dc.loss_terms(parts, x, variance=1.0)
        weights_of_terms = dict(zip(dc.TERMS, (1.0, 1.0, 1.0, 0.0, 0.0), strict=True))
        return jnp.mean(dc.weighted_sum(terms, weights_of_terms))

    weights = {
        name: jnp.asarray(0.1 * rng.normal(size=shape), jnp.float32)
        for name, shape in {
            "encode_high": (size, rank),
            "decode_high": (rank, size),
            "encode_low": (size, rank),
            "decode_low": (rank, size),
        }.items()
    }
    optimiser = optax.adam(optax.cosine_decay_schedule(0.03, 2500))

    def update(carry, _):
        weights, state = carry
        changes, state = optimiser.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, changes), state), None

    carry = (weights, optimiser.init(weights))
    (weights, _), _ = jax.jit(lambda c: jax.lax.scan(update, c, length=2500))(carry)

    _, _, directions = np.linalg.svd(data, full_matrices=False)
    for name, expected in {
        "decode_high": directions[:rank],
        "decode_low": directions[rank : 2 * rank],
    }.items():
        angles = np.degrees(scipy.linalg.subspace_angles(np.asarray(weights[name]).T, expected.T))
        assert angles.max() < 2.0, (name, angles)
