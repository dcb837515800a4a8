"""Two-dimensional convolutions that are fast on every backend: a hook for `flax.linen.Conv`.

Two kinds run far below the rest where XLA compiles for a CPU, and are written otherwise here
(`benchmarks/convolutions.py`); every other convolution is XLA's.

- The weight gradient of a wide 3x3 convolution sums x at every place times the output's gradient at
  the place beside it, a matrix product for each of the nine taps. XLA makes one convolution of it,
  with a window as large as the image. Here it is three products, each of the taps of a column: the
  image is laid out once with its channels outermost, so that the taps copy whole rows of it.
- A depthwise convolution is a sum of shifted images, each times a number per channel: one pass over
  memory, no matrix product.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FeatureMap = Float[Array, "batch height width channels"]
Output = Float[Array, "batch rows columns features"]
SameOutput = Float[Array, "batch height width features"]
Kernel = Float[Array, "3 3 channels features"]

#: Below it the products are too thin to be worth the passes over the image.
FEWEST_CHANNELS = 20

_NUMBERS = ("NHWC", "HWIO", "NHWC")


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike) -> SameOutput:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=_NUMBERS, precision=precision
    )


def _forward(
    x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike
) -> tuple[SameOutput, tuple[FeatureMap, Kernel]]:
    return _convolve(x, kernel, precision), (x, kernel)


def _backward(
    precision: jax.lax.PrecisionLike, saved: tuple[FeatureMap, Kernel], gradient: SameOutput
) -> tuple[FeatureMap, Kernel]:
    x, kernel = saved
    # Correlation's adjoint: the kernel turned by half a turn, its channels and features exchanged.
    of_x = _convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), precision)
    height, width, channels = x.shape[1:]
    padded = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    columns = [
        jnp.einsum(
            "cbhw,bhwf->cf",
            jnp.concatenate(
                [padded[:, :, row : row + height, column : column + width] for row in range(3)]
            ),
            gradient,
            precision=precision,
        )
        for column in range(3)
    ]
    of_kernel = jnp.stack(columns).reshape(3, 3, channels, -1).swapaxes(0, 1)
    return of_x, of_kernel


_convolve.defvjp(_forward, _backward)


# Compiled by itself, so that layers of one shape are traced once.
@partial(jax.jit, static_argnums=(2, 3))
def _depthwise(
    x: FeatureMap,
    kernel: Float[Array, "_ _ 1 channels"],
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> Float[Array, "batch rows columns channels"]:
    """The sum over taps of the shifted image times the tap's number of each channel."""
    size = kernel.shape[:2]
    # Sums are taken in float32 at least, as a convolution takes them.
    exact = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (
        (padded.shape[1 + axis] - size[axis]) // strides[axis] + 1 for axis in range(2)
    )
    total = jnp.zeros((len(x), rows, columns, x.shape[-1]), exact)
    for row in range(size[0]):
        for column in range(size[1]):
            shifted = padded[
                :,
                row : row + (rows - 1) * strides[0] + 1 : strides[0],
                column : column + (columns - 1) * strides[1] + 1 : strides[1],
            ]
            tap = kernel[row : row + 1, column : column + 1]
            total += shifted.astype(exact) * tap.astype(exact)
    return total.astype(x.dtype)


def conv_general_dilated(
    x: FeatureMap,
    kernel: Float[Array, "_ _ _ features"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    feature_group_count: int = 1,
    precision: jax.lax.PrecisionLike = None,
    **others: Any,
) -> Output:
    """`jax.lax.conv_general_dilated`, channels last, without dilations.

    To be given to `flax.linen.Conv(..., conv_general_dilated=...)`. A wide 3x3 one differentiates
    in reverse, any number of times, not forward.

    Raises:
        ValueError: it has dilations.
    """
    dilations = {*others.get("lhs_dilation", ()), *others.get("rhs_dilation", ())}
    if not dilations <= {1}:
        raise ValueError(f"Dilated convolutions are not here: {others}.")
    if feature_group_count == x.shape[-1] == kernel.shape[-1] > 1:
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        pads = tuple((before, after) for before, after in padding)
        return _depthwise(x, kernel, tuple(strides), pads)
    plain = kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1) and padding == "SAME"
    if plain and feature_group_count == 1 and min(kernel.shape[2:]) >= FEWEST_CHANNELS:
        return _convolve(x, kernel, precision)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_NUMBERS,
        feature_group_count=feature_group_count, precision=precision,
    )  # fmt: skip
