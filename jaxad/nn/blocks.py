"""Convolutional blocks that change the resolution by two.

Down is a 2x2 convolution of stride 2, Up a 2x2 transposed convolution of stride 2. Their windows do
not overlap, so each is computed as a dense layer per pixel and a rearrangement between channels and
pixels. This is fast on every backend; on a CPU, the weight gradient of a strided transposed
convolution would take a hundred times as long.
"""

from collections.abc import Callable

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.nn.convolution import conv_general_dilated, dot_general

NORMS = ("none", "group", "layer", "batch")
#: Those that use one example alone.
PER_EXAMPLE_NORMS = ("none", "group", "layer")

FeatureMap = Float[Array, "batch height width channels"]
Activation = Callable[[Array], Array]


def space_to_depth(x: FeatureMap, factor: int) -> Float[Array, "batch rows columns depth"]:
    """Rearranges [B, H, W, C] to [B, H / f, W / f, f * f * C]; undone by `depth_to_space`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // factor, width // factor, factor**2 * channels)


def depth_to_space(x: FeatureMap, factor: int) -> Float[Array, "batch rows columns depth"]:
    """Rearranges [B, H, W, f * f * C] to [B, f * H, f * W, C]."""
    batch, height, width, deep = x.shape
    channels = deep // factor**2
    x = x.reshape(batch, height, width, factor, factor, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * factor, width * factor, channels)


def conv3x3(features: int, dtype: DTypeLike) -> nn.Conv:
    """Returns a 3x3 convolution that keeps height and width and is fast on a CPU."""
    return nn.Conv(features, (3, 3), dtype=dtype, conv_general_dilated=conv_general_dilated)


def dense(features: int, dtype: DTypeLike | None = None) -> nn.Dense:
    """Returns a dense layer on the channels of each position that is fast on a CPU."""
    return nn.Dense(features, dtype=dtype, dot_general=dot_general)


class Norm(nn.Module):
    """Normalisation of a kind that the config names, one of `NORMS`.

    Batch norm averages over the axis `axis_name`, if it is mapped, so that its statistics are those
    of the global batch in both parallel modes. Layer norm averages over positions and channels
    (Gulrajani et al. 2017 have it in the critic), group norm over positions and 8 channels.
    """

    kind: str
    train: bool
    axis_name: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        if self.kind == "batch":
            return nn.BatchNorm(
                use_running_average=not self.train,
                momentum=0.9,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )(x)
        if self.kind == "group":
            return nn.GroupNorm(num_groups=None, group_size=8, dtype=self.dtype)(x)
        if self.kind == "layer":
            return nn.LayerNorm(reduction_axes=(-3, -2, -1), feature_axes=-1, dtype=self.dtype)(x)
        return x


class _Block(nn.Module):
    """Base of blocks of `depth` residual 3x3 convolutions."""

    depth: int
    norm: str
    activation: Activation
    train: bool
    axis_name: str | None
    dtype: DTypeLike

    def _residual(self, x: FeatureMap) -> FeatureMap:
        return Residual(
            self.depth, self.norm, self.activation, self.train, self.axis_name, self.dtype
        )(x)


class Residual(_Block):
    """Applies x + conv3x3(activation(norm(x))) `depth` times; keeps the shape."""

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        for _ in range(self.depth):
            y = Norm(self.norm, self.train, self.axis_name, self.dtype)(x)
            x = x + conv3x3(x.shape[-1], self.dtype)(self.activation(y))
        return x


class Bottleneck(nn.Module):
    """Applies x + conv1x1(relu(conv3x3(relu(x)))) `depth` times, then ReLU (VQ-VAE)."""

    depth: int
    hidden: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        for _ in range(self.depth):
            y = conv3x3(self.hidden, self.dtype)(nn.relu(x))
            x = x + dense(x.shape[-1], self.dtype)(nn.relu(y))
        return nn.relu(x)


class Down(_Block):
    """Halves height and width: conv 2x2 of stride 2, then residual 3x3 convolutions."""

    features: int

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[Array, "batch rows columns features"]:
        return self._residual(dense(self.features, self.dtype)(space_to_depth(x, 2)))


class Up(_Block):
    """Doubles height and width: residual 3x3 convolutions, then a 2x2 transposed convolution.

    The 3x3 convolutions run at the lower resolution, where they are cheap. The module ends with the
    upsampling, so that no convolution to few channels runs at full resolution.
    """

    features: int

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[Array, "batch rows columns features"]:
        x = self.activation(self._residual(x))
        x = dense(4 * self.features, self.dtype)(x)
        return depth_to_space(x, 2)
