"""Dense forms of strided convolutions against XLA's convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn import blocks

COMMON = {
    "norm": "none",
    "activation": lambda x: x,
    "train": False,
    "axis_name": None,
    "dtype": jnp.float32,
}


def test_space_to_depth_and_back(rng):
    x = jnp.array(rng.normal(size=(2, 4, 6, 3)), jnp.float32)
    np.testing.assert_array_equal(blocks.depth_to_space(blocks.space_to_depth(x, 2), 2), x)


def test_depth_to_space_places_channels_row_by_row():
    x = jnp.arange(4.0).reshape(1, 1, 1, 4)
    np.testing.assert_array_equal(blocks.depth_to_space(x, 2)[0, :, :, 0], [[0, 1], [2, 3]])


def test_down_is_a_2x2_convolution_of_stride_2(rng):
    x = jnp.array(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
    down = blocks.Down(features=5, depth=0, **COMMON)
    variables = down.init(jax.random.key(0), x)
    kernel = variables["params"]["Dense_0"]["kernel"].reshape(2, 2, 3, 5)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(down.apply(variables, x), expected, rtol=1e-5, atol=1e-5)


def test_up_is_a_2x2_transposed_convolution_of_stride_2(rng):
    x = jnp.array(rng.normal(size=(2, 4, 4, 3)), jnp.float32)
    up = blocks.Up(features=5, depth=0, **COMMON)
    variables = up.init(jax.random.key(0), x)
    kernel = variables["params"]["Dense_0"]["kernel"].reshape(3, 2, 2, 5).transpose(1, 2, 0, 3)
    # transpose_kernel=False: tap (i, j) writes output pixel (2 y + i, 2 x + j) after a flip.
    expected = jax.lax.conv_transpose(
        x, kernel[::-1, ::-1], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = expected[:, : 2 * x.shape[1], : 2 * x.shape[2]]
    np.testing.assert_allclose(up.apply(variables, x), expected, rtol=1e-5, atol=1e-5)


def test_residual_of_depth_zero_is_the_identity_and_has_no_parameters(rng):
    x = jnp.array(rng.normal(size=(1, 4, 4, 8)), jnp.float32)
    module = blocks.Residual(depth=0, **COMMON)
    variables = module.init(jax.random.key(0), x)
    assert not jax.tree.leaves(variables)
    np.testing.assert_array_equal(module.apply(variables, x), x)


def test_batch_norm_in_training_mode_normalises_over_the_batch(rng):
    x = jnp.array(rng.normal(3.0, 2.0, size=(8, 4, 4, 8)), jnp.float32)
    module = blocks.Norm("batch", train=True, axis_name=None, dtype=jnp.float32)
    variables = module.init(jax.random.key(0), x)
    y, updated = module.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), np.zeros(8), atol=1e-5)
    # momentum 0.9: the running mean moves a tenth of the way from 0 to the batch mean.
    mean = updated["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-4)


def test_group_norm_of_an_example_ignores_its_neighbours(rng):
    x = jnp.array(rng.normal(size=(4, 4, 4, 16)), jnp.float32)
    module = blocks.Norm("group", train=True, axis_name=None, dtype=jnp.float32)
    variables = module.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        module.apply(variables, x)[:1], module.apply(variables, x[:1]), rtol=1e-5, atol=1e-6
    )


def test_blocks_compute_in_the_asked_dtype_with_float32_parameters(rng):
    x = jnp.array(rng.normal(size=(1, 4, 4, 8)), jnp.float32)
    settings = {**COMMON, "dtype": jnp.bfloat16, "activation": nn.relu}
    module = blocks.Up(features=2, depth=1, **settings)
    variables = module.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert module.apply(variables, x).dtype == jnp.bfloat16


def test_bottleneck_is_vq_vaes_residual_stack(rng):
    """x + conv1x1(relu(conv3x3(relu(x)))), then ReLU, by hand from its parameters."""
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 3)).astype("float32"))
    block = blocks.Bottleneck(depth=2, hidden=5, dtype=jnp.float32)
    variables = block.init(jax.random.key(0), x)
    params = variables["params"]
    expected = np.asarray(x)
    for number in range(2):
        kernel = np.asarray(params[f"Conv_{number}"]["kernel"])  # [3, 3, in, out]
        padded = np.pad(np.maximum(expected, 0), ((0, 0), (1, 1), (1, 1), (0, 0)))
        hidden = sum(
            padded[:, i : i + 4, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3)
        )
        hidden = hidden + np.asarray(params[f"Conv_{number}"]["bias"])
        dense = params[f"Dense_{number}"]
        expected = expected + np.maximum(hidden, 0) @ np.asarray(dense["kernel"])
        expected = expected + np.asarray(dense["bias"])
    np.testing.assert_allclose(
        block.apply(variables, x), np.maximum(expected, 0), rtol=1e-4, atol=1e-5
    )
