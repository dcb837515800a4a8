"""Convolutions and their derivatives against XLA's."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn import convolution
from jaxad.nn.convolution import conv_general_dilated, dot_general


def conv(features: int, ours: bool) -> nn.Conv:
    given = {"conv_general_dilated": conv_general_dilated} if ours else {}
    return nn.Conv(features, (3, 3), precision="highest", **given)


# Either side of the number of channels from which on the products are used, of whole vectors of
# features, and of few of them; no side is square.
@pytest.mark.parametrize(
    ("channels", "features"),
    [(56, 64), (64, 56), (56, 55), (60, 60), (16, 60), (3, 64), (20, 12), (12, 20), (2, 3)],
)
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


def test_convolutions_to_few_features_sum_in_float32():
    """As XLA's do: the result is rounded to bfloat16 once."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 9, 7, 64)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 4)) / 24, jnp.bfloat16)
    y = conv_general_dilated(x, kernel, (1, 1), "SAME")
    exact = conv_general_dilated(x.astype(jnp.float32), kernel.astype(jnp.float32), (1, 1), "SAME")
    assert y.dtype == jnp.bfloat16
    # A bfloat16 has 8 bits; float32 sums may move a value across the middle of two.
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8 * 1.01, atol=1e-5)


@pytest.mark.parametrize("channels", [56, 24, 6])
def test_the_gradient_has_a_gradient(channels):
    """Gradient penalties differentiate twice."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 4, 4, channels)))
    params = conv(channels, ours=True).init(jax.random.key(0), x)

    def penalty(params, ours: bool):
        slope = jax.grad(lambda x: jnp.sum(conv(channels, ours).apply(params, x) ** 2))(x)
        return jnp.sum(slope**2)

    for ours, theirs in zip(
        jax.tree.leaves(jax.grad(penalty)(params, True)),
        jax.tree.leaves(jax.grad(penalty)(params, False)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(abs(theirs).max()))


@pytest.mark.parametrize("channels", [56, 24, 6])
def test_seeds_train_side_by_side(channels):
    """`vmap` over kernels and images, as in a program of several seeds."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 1, 4, 5, channels)))
    kernels = jnp.asarray(rng.normal(size=(2, 3, 3, channels, channels)))

    def slopes(x, kernel):
        return jax.grad(
            lambda *at: jnp.sum(conv_general_dilated(*at, (1, 1), "SAME") ** 2), argnums=(0, 1)
        )(x, kernel)

    alone = [slopes(*one) for one in zip(x, kernels, strict=True)]
    for together, *parts in zip(jax.vmap(slopes)(x, kernels), *alone, strict=True):
        scale = float(jnp.abs(together).max())
        np.testing.assert_allclose(together, jnp.stack(parts), rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("features", "computed"), [(60, 64), (64, 64), (40, 40)])
def test_features_fill_whole_vectors_where_there_are_many(features, computed):
    x, kernel = jnp.zeros((1, 5, 5, 8)), jnp.zeros((3, 3, 8, features))
    traced = str(jax.make_jaxpr(lambda x, k: conv_general_dilated(x, k, (1, 1), "SAME"))(x, kernel))
    assert f"f32[1,5,5,{computed}] = conv_general_dilated" in traced


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


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dense_layers_are_those_of_flax(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    plain = nn.Dense(4, dtype=dtype, precision="highest")
    flat = nn.Dense(4, dtype=dtype, precision="highest", dot_general=dot_general)
    params = plain.init(jax.random.key(0), x)

    def value(layer: nn.Dense, params, x):
        return jnp.sum(jnp.sin(layer.apply(params, x).astype(jnp.float32)))

    assert flat.apply(params, x).dtype == plain.apply(params, x).dtype == dtype
    # bfloat16 has 8 bits, and the sums over positions differ in their order.
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for ours, theirs in zip(
        jax.tree.leaves(jax.value_and_grad(value, argnums=(1, 2))(flat, params, x)),
        jax.tree.leaves(jax.value_and_grad(value, argnums=(1, 2))(plain, params, x)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_the_gradient_of_a_dense_layer_multiplies_matrices():
    """XLA copies arrays of more axes into another order before it multiplies."""
    layer = nn.Dense(4, dot_general=dot_general)
    x = jnp.zeros((2, 3, 5, 6))
    params = layer.init(jax.random.key(0), x)
    traced = jax.make_jaxpr(jax.grad(lambda p, x: jnp.sum(layer.apply(p, x) ** 2), (0, 1)))(
        params, x
    )
    products = [line for line in str(traced).splitlines() if "dot_general" in line]
    assert len(products) == 3  # forward, and two gradients
    shapes = ("f32[30,4]", "f32[30,6]", "f32[4,6]", "f32[6,4]")
    assert all(any(shape in line for shape in shapes) for line in products)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "strides", "padding"),
    [
        (3, 1, "SAME"),
        (5, 2, "SAME"),
        (3, 2, [(1, 1), (1, 1)]),
        (5, (1, 2), "VALID"),
        (3, 1, [(3, 0), (0, 4)]),  # more padding than the window reaches
    ],
)
def test_depthwise_is_that_of_xla(size, strides, padding, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 11, 6)), dtype)

    def layer(**given):
        return nn.Conv(
            6, (size, size), strides, padding, feature_group_count=6, dtype=dtype, **given
        )

    params = layer().init(jax.random.key(0), x)

    def value(params, x, **given):
        return layer(**given).apply(params, x).astype(jnp.float32)

    # A bfloat16 has 8 bits.
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-7
    ours = value(params, x, conv_general_dilated=conv_general_dilated)
    np.testing.assert_allclose(ours, value(params, x), rtol=tolerance, atol=tolerance)

    def gradients(**given):
        actual = jax.grad(lambda *at: jnp.sum(value(*at, **given) ** 2), argnums=(0, 1))(params, x)
        return [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(actual)]

    actual = gradients(conv_general_dilated=conv_general_dilated)
    for ours, theirs in zip(actual, gradients(), strict=True):
        # Those of bias and kernel are sums over all places.
        scale = max(1.0, float(jnp.max(jnp.abs(theirs))) / 8)
        np.testing.assert_allclose(ours, theirs, rtol=4 * tolerance, atol=8 * tolerance * scale)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("strides", "padding"), [(1, "SAME"), (2, "SAME"), ((1, 3), [(0, 0)] * 2)])
def test_pointwise_is_that_of_xla(strides, padding, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 8, 6)), dtype)

    def layer(**given):
        return nn.Conv(7, (1, 1), strides, padding, dtype=dtype, precision="highest", **given)

    params = layer().init(jax.random.key(0), x)

    def value(params, x, **given):
        return jnp.sum(layer(**given).apply(params, x).astype(jnp.float32) ** 2)

    given = {"conv_general_dilated": conv_general_dilated}
    convolution_is_there = "conv_general_dilated" in str(
        jax.make_jaxpr(layer(**given).apply)(params, x)
    )
    assert not convolution_is_there
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-6  # a bfloat16 has 8 bits
    for ours, theirs in zip(
        jax.tree.leaves(jax.value_and_grad(partial(value, **given), argnums=(0, 1))(params, x)),
        jax.tree.leaves(jax.value_and_grad(value, argnums=(0, 1))(params, x)),
        strict=True,
    ):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(
            np.float32(ours), np.float32(theirs), rtol=tolerance, atol=tolerance * scale
        )


@pytest.mark.parametrize(
    "settings",
    [{"kernel_size": (1, 1), "padding": 1}, {"kernel_size": (3, 3), "strides": 2},
     {"kernel_size": (3, 3), "padding": "VALID"},
     {"kernel_size": (3, 3), "feature_group_count": 2},
     {"kernel_size": (3, 3), "padding": [(1, 1), (1, 1)]}],
)  # fmt: skip
def test_every_other_convolution_is_that_of_xla(settings):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 7, 64)))
    params = nn.Conv(64, **settings).init(jax.random.key(0), x)
    ours = nn.Conv(64, conv_general_dilated=conv_general_dilated, **settings).apply(params, x)
    np.testing.assert_allclose(ours, nn.Conv(64, **settings).apply(params, x), atol=1e-5)


def test_dilations_are_refused():
    with pytest.raises(ValueError, match="Dilated"):
        conv_general_dilated(
            jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 3, 3)), (1, 1), "SAME",
            lhs_dilation=(1, 1), rhs_dilation=(2, 2),
        )  # fmt: skip
