"""Wide-ResNet-50-2, cut off after its third stage.

He et al. 2016, "Deep Residual Learning"; Zagoruyko and Komodakis 2016, "Wide Residual Networks":
ResNet-50 with 3x3 convolutions of twice the width. Layout and names of tensors are torchvision's
(stride in the 3x3 convolution), which timm's resnets share.
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
class _Stage:
    """Bottlenecks of 1x1, 3x3 and 1x1 convolutions; the first one has the stride."""

    repeats: int
    stride: int
    width: int
    channels: int


STAGES = (_Stage(3, 1, 128, 256), _Stage(4, 2, 256, 512), _Stage(6, 2, 512, 1024))
#: Stride -> number of stages up to its features.
_NUM_STAGES = {4: 1, 8: 2, 16: 3}


def layers(stride: int) -> list[Layer]:
    """Returns the layers up to the features of a stride."""
    listed = [Layer("stem", "conv1", "bn1")]
    for number, stage in enumerate(STAGES[: _NUM_STAGES[stride]], start=1):
        for block in range(stage.repeats):
            ours, torchs = f"stage_{number}_block_{block}", f"layer{number}.{block}"
            listed += [
                Layer(f"{ours}_conv{place}", f"{torchs}.conv{place}", f"{torchs}.bn{place}")
                for place in (1, 2, 3)
            ]
            if block == 0:
                shortcut = f"{torchs}.downsample"
                listed.append(Layer(f"{ours}_shortcut", f"{shortcut}.0", f"{shortcut}.1"))
    return listed


def unused(stride: int) -> tuple[str, ...]:
    """Returns prefixes of the tensors of layers that come after the features of a stride."""
    return ("fc.", *(f"layer{number}." for number in range(_NUM_STAGES[stride] + 1, 5)))


class WideResNet50(nn.Module):
    """Maps normalised images [B, H, W, 3] to features.

    Attributes:
        stride: stride of the features (4, 8 or 16: 256, 512 or 1024 channels).
        taps: strides up to `stride`; if not empty, the result is a tuple of the features of each.
    """

    stride: int
    dtype: DTypeLike = jnp.float32
    taps: tuple[int, ...] = ()

    def _conv(self, name: str, x: FeatureMap, features: int, size: int, stride: int = 1) -> Array:
        # torch pads evenly where XLA's SAME would pad a strided convolution on one side.
        padding = [(size // 2, size // 2)] * 2
        return nn.Conv(
            features, (size, size), strides=stride, padding=padding, dtype=self.dtype,
            conv_general_dilated=conv_general_dilated, name=name,
        )(x)  # fmt: skip

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> FeatureMap | tuple[FeatureMap, ...]:
        tapped = {}
        x = nn.relu(self._conv("stem", images.astype(self.dtype), 64, 7, 2))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        for number, stage in enumerate(STAGES[: _NUM_STAGES[self.stride]], start=1):
            for block in range(stage.repeats):
                name, stride = f"stage_{number}_block_{block}", stage.stride if block == 0 else 1
                y = nn.relu(self._conv(f"{name}_conv1", x, stage.width, 1))
                y = nn.relu(self._conv(f"{name}_conv2", y, stage.width, 3, stride))
                y = self._conv(f"{name}_conv3", y, stage.channels, 1)
                if block == 0:
                    x = self._conv(f"{name}_shortcut", x, stage.channels, 1, stride)
                x = nn.relu(x + y)
            tapped[number] = x
        return tuple(tapped[_NUM_STAGES[stride]] for stride in self.taps) or x
