"""Layers that are fast on a CPU: hooks for `flax.linen.Conv` and `flax.linen.Dense`.

XLA compiles five kinds of convolutions to slow programs for CPUs (`benchmarks/convolutions.py`).
This module writes them differently, for every backend (`docs/performance.md` has what was measured
on a GPU). Every other convolution is XLA's.

- A 1x1 convolution is a matrix product of every position's channels.
- The weight gradient of a wide 3x3 convolution is one matrix product over all positions: the
  columns of three taps side by side, times the gradient shifted by the rows of three taps. XLA
  computes one convolution with a window as large as the image. The copies take about three times
  the memory of the image and of the gradient.
- A 3x3 convolution to fewer than 16 features is one matrix product to three times as many, of which
  three shifted thirds are added up.
- A convolution whose features are not a multiple of 16 is padded to one and cropped: XLA's takes up
  to twice as long for 60 features as for 64.
- A depthwise convolution is a sum of shifted images, each times a number per channel: one pass over
  memory, no matrix product. Its gradient in the image is another one.

A dense layer on every position of an image is a product of matrices. With more axes, XLA copies the
output's gradient into another order before it multiplies, which takes longer than the product.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

FeatureMap = Float[Array, "batch height width channels"]
Output = Float[Array, "batch rows columns features"]
SameOutput = Float[Array, "batch height width features"]
Kernel = Float[Array, "3 3 channels features"]
Padded = Float[Array, "batch high wide channels"]
DepthwiseKernel = Float[Array, "_ _ 1 channels"]
DepthwiseOutput = Float[Array, "batch rows columns channels"]
Pads = tuple[tuple[int, int], ...]

#: Fewest channels for the product: from here on it takes 0.4 to 0.8 of XLA's time.
FEWEST_CHANNELS = 56

#: Features that XLA's convolution computes at once on a CPU (a vector of floats).
_LANES = 16
#: Fewest features for which padding saves time.
_FEWEST_FEATURES = 48

_NUMBERS = ("NHWC", "HWIO", "NHWC")


def _xla(
    x: FeatureMap,
    kernel: Float[Array, "_ _ _ features"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    precision: jax.lax.PrecisionLike,
    groups: int = 1,
) -> Output:
    """Runs XLA's convolution, with features padded to whole vectors if that saves time."""
    features = kernel.shape[3]
    missing = -features % _LANES if features >= _FEWEST_FEATURES and groups == 1 else 0
    if missing:
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, missing)))
    y = jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_NUMBERS, feature_group_count=groups,
        precision=precision,
    )  # fmt: skip
    return y[..., :features] if missing else y


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike) -> SameOutput:
    if kernel.shape[3] < _LANES:
        return _narrow(x, kernel, precision)
    return _xla(x, kernel, (1, 1), "SAME", precision)


def _narrow(x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike) -> SameOutput:
    """Multiplies each position's row of three by the taps of all rows, then adds up the rows."""
    height, width, channels = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    beside = jnp.concatenate([padded[:, :, tap : tap + width] for tap in range(3)], axis=-1)
    taps = kernel.reshape(3, 3 * channels, -1)
    rows = jnp.einsum(
        "bhwk,rkf->bhwrf", beside, taps, precision=precision,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )  # fmt: skip
    total = rows[:, :height, :, 0] + rows[:, 1:-1, :, 1] + rows[:, 2:, :, 2]
    return total.astype(x.dtype)


def _forward(
    x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike
) -> tuple[SameOutput, tuple[FeatureMap, Kernel]]:
    return _convolve(x, kernel, precision), (x, kernel)


def _backward(
    precision: jax.lax.PrecisionLike, saved: tuple[FeatureMap, Kernel], gradient: SameOutput
) -> tuple[FeatureMap, Kernel]:
    x, kernel = saved
    # Adjoint of a correlation: the kernel rotated by 180 degrees, channels and features swapped.
    of_x = _convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), precision)
    if min(kernel.shape[2:]) >= FEWEST_CHANNELS:
        return of_x, _product(x, gradient, precision)
    transposed = jax.linear_transpose(
        lambda kernel: _xla(x, kernel, (1, 1), "SAME", precision), kernel
    )
    return of_x, transposed(gradient)[0]


def _product(x: FeatureMap, gradient: SameOutput, precision: jax.lax.PrecisionLike) -> Kernel:
    """Returns the weight gradient, one product of the taps' columns and the taps' rows."""
    (height, width, channels), features = x.shape[1:], gradient.shape[3]
    across = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    columns = [across[:, :, tap : tap + width] for tap in range(3)]
    # The tap above reads the row above, whose output is the gradient one row further down.
    below = jnp.pad(gradient, ((0, 0), (1, 1), (0, 0), (0, 0)))
    rows = [below[:, 2 - tap : 2 - tap + height] for tap in range(3)]
    product = jax.lax.dot_general(
        jnp.concatenate(columns, axis=-1).reshape(-1, 3 * channels),
        jnp.concatenate(rows, axis=-1).reshape(-1, 3 * features),
        (((0,), (0,)), ((), ())),
        precision=precision,
    )
    return product.reshape(3, channels, 3, features).transpose(2, 0, 1, 3)


_convolve.defvjp(_forward, _backward)


def _pointwise(
    x: FeatureMap,
    kernel: Float[Array, "1 1 channels features"],
    strides: Sequence[int],
    precision: jax.lax.PrecisionLike,
) -> Output:
    """Returns the matrix product of every position that the strides reach."""
    reached = x[:, :: strides[0], :: strides[1]]
    product = jnp.matmul(reached.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
    return product.reshape(*reached.shape[:3], -1)


def dot_general(
    x: Float[Array, "*positions channels"],
    kernel: Float[Array, "channels features"],
    dimension_numbers: Any = None,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "*positions features"]:
    """Does what `jax.lax.dot_general` does for `flax.linen.Dense`, with one axis of positions.

    Pass it as `flax.linen.Dense(..., dot_general=...)`. `dimension_numbers` are ignored: the last
    axis of `x` is contracted.
    """
    product = jax.lax.dot_general(
        x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), precision=precision,
        preferred_element_type=preferred_element_type,
    )  # fmt: skip
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(
    x: FeatureMap, kernel: DepthwiseKernel, strides: tuple[int, ...], pads: Pads
) -> DepthwiseOutput:
    """Returns the sum over taps of the shifted image times the tap's number of each channel."""
    return _sum_of_taps(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, strides)


def _shifts(padded: Padded, size: Sequence[int], strides: Sequence[int]) -> list[DepthwiseOutput]:
    """Returns the input of each tap of a kernel of this size, row by row."""
    rows, columns = (
        (padded.shape[1 + axis] - size[axis]) // strides[axis] + 1 for axis in range(2)
    )
    return [
        padded[
            :,
            row : row + (rows - 1) * strides[0] + 1 : strides[0],
            column : column + (columns - 1) * strides[1] + 1 : strides[1],
        ]
        for row in range(size[0])
        for column in range(size[1])
    ]


# A jit of its own: layers of one shape are traced once.
@partial(jax.jit, static_argnums=2)
def _sum_of_taps(
    padded: Padded, kernel: DepthwiseKernel, strides: tuple[int, ...]
) -> DepthwiseOutput:
    # Like a convolution's, sums have at least float32.
    exact = jnp.promote_types(padded.dtype, jnp.float32)
    taps = kernel.astype(exact).reshape(-1, 1, 1, 1, kernel.shape[-1])
    shifts = _shifts(padded, kernel.shape[:2], strides)
    total = jnp.zeros(shifts[0].shape, exact)
    for tap, shifted in zip(taps, shifts, strict=True):
        total += shifted.astype(exact) * tap
    return total.astype(padded.dtype)


def _depthwise_forward(
    x: FeatureMap, kernel: DepthwiseKernel, strides: tuple[int, ...], pads: Pads
) -> tuple[DepthwiseOutput, tuple[FeatureMap, DepthwiseKernel]]:
    return _depthwise(x, kernel, strides, pads), (x, kernel)


def _depthwise_backward(
    strides: tuple[int, ...],
    pads: Pads,
    saved: tuple[FeatureMap, DepthwiseKernel],
    gradient: DepthwiseOutput,
) -> tuple[FeatureMap, DepthwiseKernel]:
    """Returns the gradient as a sum over taps; XLA's own adds a padded image for each tap."""
    x, kernel = saved
    around = []
    for axis in range(2):
        before = kernel.shape[axis] - 1 - pads[axis][0]
        reached = (gradient.shape[1 + axis] - 1) * strides[axis] + 1
        after = x.shape[1 + axis] + kernel.shape[axis] - 1 - before - reached
        around.append((before, after, strides[axis] - 1))
    spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), ((0, 0, 0), *around, (0, 0, 0)))
    of_x = _sum_of_taps(spread, kernel[::-1, ::-1], (1, 1))
    exact = jnp.promote_types(x.dtype, jnp.float32)
    shifts = _shifts(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel.shape[:2], strides)
    sums = [
        jnp.sum(shifted.astype(exact) * gradient.astype(exact), axis=(0, 1, 2))
        for shifted in shifts
    ]
    return of_x, jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def conv_general_dilated(
    x: FeatureMap,
    kernel: Float[Array, "_ _ _ features"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: jax.lax.PrecisionLike = None,
) -> Output:
    """Does what `jax.lax.conv_general_dilated` does for `flax.linen.Conv`, without dilations.

    Pass it as `flax.linen.Conv(..., conv_general_dilated=...)`. Channels are last;
    `dimension_numbers` are ignored. 3x3 and depthwise convolutions differentiate in reverse mode,
    any number of times, but not in forward mode.

    Raises:
        ValueError: the convolution has dilations.
    """
    if {*lhs_dilation, *rhs_dilation} != {1}:
        raise ValueError(f"Dilated convolutions are not supported: {lhs_dilation}, {rhs_dilation}.")
    if feature_group_count == x.shape[-1] == kernel.shape[-1] > 1:
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        pads = tuple((before, after) for before, after in padding)
        return _depthwise(x, kernel, tuple(strides), pads)
    # `SAME` and `VALID` add no padding to a 1x1 window.
    is_unpadded = isinstance(padding, str) or all(tuple(pad) == (0, 0) for pad in padding)
    if kernel.shape[:2] == (1, 1) and feature_group_count == 1 and is_unpadded:
        return _pointwise(x, kernel, strides, precision)
    plain = kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1) and padding == "SAME"
    if plain and feature_group_count == 1:
        return _convolve(x, kernel, precision)
    return _xla(x, kernel, strides, padding, precision, feature_group_count)
