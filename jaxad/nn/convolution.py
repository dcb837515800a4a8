"""A 3x3 convolution whose weight gradient is fast on every backend.

The gradient of a kernel sums x at every place times the output's gradient at the place beside it,
a matrix product for each of the nine taps. XLA makes one convolution of it, with a window as large
as the image, which on a CPU runs far below the rest where there are many channels, the more so the
larger the image (`benchmarks/weight_gradients.py`). Here it is three products, each of the three
taps of a column: the image is laid out with its channels outermost once, so that what the taps
copy of it are whole rows.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FeatureMap = Float[Array, "batch height width channels"]
Output = Float[Array, "batch height width features"]
Kernel = Float[Array, "3 3 channels features"]

#: Below it the products are too thin to be worth the passes over the image.
FEWEST_CHANNELS = 32


_xla_convolution = partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike) -> Output:
    return _xla_convolution(x, kernel, precision=precision)


def _forward(
    x: FeatureMap, kernel: Kernel, precision: jax.lax.PrecisionLike
) -> tuple[Output, tuple[FeatureMap, Kernel]]:
    return _convolve(x, kernel, precision), (x, kernel)


def _backward(
    precision: jax.lax.PrecisionLike, saved: tuple[FeatureMap, Kernel], gradient: Output
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


def conv_general_dilated(
    x: FeatureMap,
    kernel: Float[Array, "rows columns channels features"],
    strides: Sequence[int],
    padding: str,
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    dimension_numbers: object = None,
    feature_group_count: int = 1,
    precision: jax.lax.PrecisionLike = None,
) -> Output:
    """`jax.lax.conv_general_dilated` of a 3x3 kernel, stride 1 and padding SAME, channels last.

    To be given to `flax.linen.Conv(features, (3, 3), conv_general_dilated=...)`, which says the
    rest. It differentiates in reverse, any number of times, not forward.

    Raises:
        ValueError: it is another convolution.
    """
    ones = {*strides, *lhs_dilation, *rhs_dilation, feature_group_count}
    if kernel.shape[:2] != (3, 3) or ones != {1} or padding != "SAME":
        raise ValueError(
            f"Not a plain 3x3 convolution: kernel {kernel.shape}, strides {strides}, padding "
            f"{padding}, dilations {lhs_dilation} and {rhs_dilation}, {feature_group_count} groups."
        )
    if min(kernel.shape[2:]) < FEWEST_CHANNELS:
        return _xla_convolution(x, kernel, precision=precision)
    return _convolve(x, kernel, precision)
