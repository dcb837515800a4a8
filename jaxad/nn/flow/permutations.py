"""Fixed permutations and rotations of channels as distrax bijectors.

All preserve volume. Their event is the channels alone: log-dets are [B, H, W], and zero.
"""

import abc

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FeatureMap = Float[Array, "batch rows columns features"]
LogDet = Float[Array, "batch rows columns"]


#: Up to this number of channels, a product with the matrix takes less time on a CPU than a
#: gather of single numbers.
MOST_CHANNELS_OF_PRODUCT = 128


@jax.custom_vjp
def gather_channels(
    x: FeatureMap, order: Int[Array, " features"], inverse: Int[Array, " features"]
) -> FeatureMap:
    """Returns x[..., order]; its gradient is a gather too, where autodiff would scatter."""
    return jnp.take(x, order, axis=-1, mode="clip")


def _forward(x: FeatureMap, order: Array, inverse: Array) -> tuple[FeatureMap, Array]:
    return gather_channels(x, order, inverse), inverse


def _backward(inverse: Array, gradient: FeatureMap) -> tuple[FeatureMap, None, None]:
    return jnp.take(gradient, inverse, axis=-1, mode="clip"), None, None


gather_channels.defvjp(_forward, _backward)


def multiply_channels(x: FeatureMap, order: Int[Array, " features"]) -> FeatureMap:
    """Returns x[..., order], computed as a product with the permutation's matrix.

    Exact for finite numbers; any other number makes all channels at its position NaN.
    """
    matrix = jax.nn.one_hot(order, x.shape[-1], dtype=x.dtype, axis=0)
    return jnp.matmul(x, matrix, precision="highest")


def _take_channels(
    x: FeatureMap, order: Int[Array, " features"], inverse: Int[Array, " features"]
) -> FeatureMap:
    if x.shape[-1] > MOST_CHANNELS_OF_PRODUCT:
        return gather_channels(x, order, inverse)
    return multiply_channels(x, order)


class _ChannelMap(distrax.Bijector):
    """Base of the bijectors: a subclass has the map and its inverse."""

    def __init__(self) -> None:
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)

    @abc.abstractmethod
    def _map(self, x: FeatureMap) -> FeatureMap: ...

    @abc.abstractmethod
    def _map_back(self, y: FeatureMap) -> FeatureMap: ...

    def forward_and_log_det(self, x: FeatureMap) -> tuple[FeatureMap, LogDet]:
        return self._map(x), jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y: FeatureMap) -> tuple[FeatureMap, LogDet]:
        return self._map_back(y), jnp.zeros(y.shape[:-1], y.dtype)


class ChannelPermutation(_ChannelMap):
    """Permutes the channels: y = x[..., order], with `order` int32 [C], every channel once."""

    def __init__(self, order: Int[Array, " features"]):
        super().__init__()
        self._order = order
        self._inverse = jnp.argsort(order)

    def _map(self, x: FeatureMap) -> FeatureMap:
        return _take_channels(x, self._order, self._inverse)

    def _map_back(self, y: FeatureMap) -> FeatureMap:
        return _take_channels(y, self._inverse, self._order)


class ChannelReversal(_ChannelMap):
    """Reverses the order of the channels: y = x[..., ::-1]."""

    def _map(self, x: FeatureMap) -> FeatureMap:
        return x[..., ::-1]

    def _map_back(self, y: FeatureMap) -> FeatureMap:
        return y[..., ::-1]


class ChannelRotation(_ChannelMap):
    """Rotates the channels at every position: y = W x, where W is orthogonal with determinant 1."""

    def __init__(self, matrix: Float[Array, "features features"]):
        super().__init__()
        self._matrix = matrix

    def _map(self, x: FeatureMap) -> FeatureMap:
        return jnp.matmul(x, self._matrix.T, precision="highest")

    def _map_back(self, y: FeatureMap) -> FeatureMap:
        return jnp.matmul(y, self._matrix, precision="highest")
