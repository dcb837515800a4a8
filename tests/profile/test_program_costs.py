"""Costs of compiled programs, compared with counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn import convolution
from jaxad.profile.program_costs import all_reduces, array_bytes, program_costs


def costs(function, *arrays, **options):
    return program_costs(jax.jit(function, **options).lower(*arrays).compile())


def ones(*shape):
    return jnp.ones(shape, jnp.float32)


def convolve(x, kernel, padding="VALID", strides=(1, 1)):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("rows", [8, 512])  # of XLA's own loop, and of a library's kernel
def test_a_matrix_product_is_a_multiplication_and_an_addition_each(rows):
    found = costs(jnp.matmul, ones(rows, 32), ones(32, 16))
    assert found.flops == 2 * rows * 32 * 16
    assert found.bytes_accessed == 4 * (rows * 32 + 32 * 16 + rows * 16)
    assert found.peak_memory >= found.bytes_accessed
    assert (found.transcendentals, found.all_reduces, found.kernels, found.loops) == (0, (), 1, 0)


@pytest.mark.parametrize(
    ("padding", "strides", "taps"),
    [
        ("VALID", (1, 1), (10 * 3) ** 2),
        ("SAME", (1, 1), (12 * 3 - 2) ** 2),  # the two that fall on padding in each direction
        ("VALID", (2, 2), (5 * 3) ** 2),
    ],
)
def test_a_convolution_is_its_taps_inside_the_image(padding, strides, taps):
    found = costs(
        lambda x, k: convolve(x, k, padding, strides), ones(4, 12, 12, 8), ones(3, 3, 8, 6)
    )
    assert found.flops == 2 * 4 * taps * 8 * 6


def test_the_gradient_of_a_wide_convolution_is_counted_as_matrix_products():
    """Gradient of the image: a convolution; of the kernel: nine products, with the padding."""

    def gradient(x, kernel, weights):
        def total(x, kernel):
            return jnp.sum(weights * convolution.conv_general_dilated(x, kernel, (1, 1), "SAME"))

        return jax.grad(total, argnums=(0, 1))(x, kernel)

    wide = 64  # a multiple of 16, so that no features are filled up
    assert wide >= convolution.FEWEST_CHANNELS
    found = costs(gradient, ones(2, 8, 8, wide), ones(3, 3, wide, wide), ones(2, 8, 8, wide))
    of_image = 2 * 2 * (8 * 3 - 2) ** 2 * wide**2
    of_kernel = 2 * 2 * 8**2 * 9 * wide**2
    assert found.flops == pytest.approx(of_image + of_kernel, rel=1e-3)


def test_the_body_of_a_loop_is_counted_once():
    def powers(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=10)[0]

    found = costs(powers, ones(64, 64))
    assert found.flops == pytest.approx(2 * 64**3, rel=0.01)
    assert found.loops == 1


def test_exponentials_are_counted_separately():
    assert costs(jnp.exp, ones(100)).transcendentals == 100


def test_memory_of_a_donated_argument_is_counted_once():
    def add(x):
        return x + 1

    kept, donated = costs(add, ones(1000)), costs(add, ones(1000), donate_argnums=0)
    assert (kept.peak_memory, donated.peak_memory) == (8000, 4000)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_costs_are_of_one_device_and_all_reduces_are_found(mode):
    from jaxad.runtime.parallel import make_parallel

    parallel = make_parallel(mode)
    assert len(parallel.devices) == 8

    def summed(weights, batch):
        return jax.lax.psum(batch["x"].T @ batch["x"] @ weights, parallel.axis_name)

    weights = parallel.put_replicated(jnp.ones((4, 4)))
    batch = parallel.put_batch({"x": np.ones((16, 4), np.float32)})
    found = program_costs(parallel.compile_reduce(summed).lower(weights, batch).compile())
    assert found.all_reduces == (4 * 4 * 4,)
    # 2 rows each, then the product with the weights.
    assert found.flops == pytest.approx(2 * (4 * 2 * 4 + 4 * 4 * 4), rel=0.15)


TEXT = """HloModule jit_f

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%a, %b)
}

ENTRY %main (x: f32[3,4]) -> (f32[3,4], bf16[]) {
  %x = f32[3,4]{1,0:T(8,128)} parameter(0), metadata={op_name="x = f32[9] all-reduce("}
  %all-reduce.1 = (f32[3,4]{1,0:T(8,128)}, /*index=1*/bf16[]) all-reduce(%x, %x), to_apply=%add
  %start = s32[5]{0} all-reduce-start(%x), to_apply=%add
  %done = s32[5]{0} all-reduce-done(%start)
  ROOT %tuple = (f32[3,4], bf16[]) tuple(%x, %x)
}
"""


def test_all_reduces_are_read_from_a_programs_text():
    assert all_reduces(TEXT) == (3 * 4 * 4 + 2, 5 * 4)


def test_sizes_of_types():
    assert array_bytes("f32[3,4]{1,0}") == 48
    assert array_bytes("(pred[7]{0}, f64[], token[])") == 15
    assert array_bytes("()") == 0
