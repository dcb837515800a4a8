"""The 3x3 convolution against XLA's own derivative."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn import convolution
from jaxad.nn.convolution import conv_general_dilated


def conv(features: int, ours: bool) -> nn.Conv:
    given = {"conv_general_dilated": conv_general_dilated} if ours else {}
    return nn.Conv(features, (3, 3), precision="highest", **given)


# Either side of the number of channels from which on the products are used; no side is square.
@pytest.mark.parametrize(("channels", "features"), [(32, 48), (48, 32), (32, 3), (3, 32), (2, 3)])
def test_value_and_gradients_are_those_of_xla(channels, features):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 7, channels)))
    direction = jnp.asarray(rng.normal(size=(2, 5, 7, features)))
    params = conv(features, ours=False).init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # the bias is not 0

    def value(ours: bool, params, x):
        return jnp.sum(jnp.sin(conv(features, ours).apply(params, x)) * direction)

    for ours, theirs in zip(
        jax.tree.leaves(jax.grad(value, argnums=(1, 2))(True, params, x)),
        jax.tree.leaves(jax.grad(value, argnums=(1, 2))(False, params, x)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(abs(theirs).max()))
    assert float(value(True, params, x)) == pytest.approx(float(value(False, params, x)), rel=1e-5)


def test_the_gradient_has_a_gradient():
    """Gradient penalties differentiate twice."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 32)))
    params = conv(32, ours=True).init(jax.random.key(0), x)

    def penalty(params, ours: bool):
        slope = jax.grad(lambda x: jnp.sum(conv(32, ours).apply(params, x) ** 2))(x)
        return jnp.sum(slope**2)

    for ours, theirs in zip(
        jax.tree.leaves(jax.grad(penalty)(params, True)),
        jax.tree.leaves(jax.grad(penalty)(params, False)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(abs(theirs).max()))


def test_it_is_used_where_there_are_many_channels():
    """No convolution of the backward pass has a window as large as the image."""

    def windows(channels: int) -> str:
        x = jnp.zeros((1, 9, 9, channels))
        kernel = jnp.zeros((3, 3, channels, channels))
        return str(
            jax.make_jaxpr(
                jax.grad(lambda k: jnp.sum(conv_general_dilated(x, k, (1, 1), "SAME") ** 2))
            )(kernel)
        )

    assert "dot_general" in windows(convolution.FEWEST_CHANNELS)
    assert "dot_general" not in windows(convolution.FEWEST_CHANNELS - 1)


@pytest.mark.parametrize(
    ("size", "strides", "padding"), [(1, (1, 1), "SAME"), (3, (2, 2), "SAME"), (3, (1, 1), "VALID")]
)
def test_another_convolution_is_refused(size, strides, padding):
    with pytest.raises(ValueError, match="Not a plain 3x3 convolution"):
        conv_general_dilated(
            jnp.zeros((1, 4, 4, 32)), jnp.zeros((size, size, 32, 32)), strides, padding
        )
