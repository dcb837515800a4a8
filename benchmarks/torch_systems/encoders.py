"""Frozen ImageNet encoders in PyTorch, their batch norms folded into the convolutions.

Layers have the names of `jaxad.nn.backbones`, whose folded weights they take.
"""

import abc

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.twin import Conv, Tree, take_layers

#: Kernel, stride, expansion and channels of EfficientNet-Lite0's inverted bottlenecks.
_BLOCKS = (
    (3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80),
    (3, 1, 6, 80), (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
)  # fmt: skip
#: Number of the last block of a stride.
_LAST_BLOCK = {4: 2, 8: 4, 16: 10}
#: Blocks, first stride, width and channels of Wide-ResNet-50-2's stages.
_STAGES = ((3, 1, 128, 256), (4, 2, 256, 512), (6, 2, 512, 1024))
_LAST_STAGE = {4: 1, 8: 2, 16: 3}


class Encoder(nn.Module, abc.ABC):
    """Images in [0, 1] to the features of each of the strides asked for.

    Attributes:
        channels: of the features, by stride.
        mean: of the images that it was trained on.
        deviation: of these.
        scale: what the features are multiplied by.
    """

    channels: dict[int, int]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __init__(self, strides: tuple[int, ...]):
        super().__init__()
        self.strides, self.convs, self.scale = strides, nn.ModuleDict(), 1.0
        for name in ("mean", "deviation"):
            values = torch.tensor(getattr(type(self), name)).reshape(1, 3, 1, 1)
            self.register_buffer(f"image_{name}", values)

    def add(self, name: str, inputs: int, outputs: int, size: int, **how: int) -> None:
        """Adds a convolution; `name` is jaxad's."""
        self.convs[name] = Conv(name, inputs, outputs, size, **how)

    @abc.abstractmethod
    def levels(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        """Stride -> features of normalised images."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = (images.expand(-1, 3, -1, -1) - self.image_mean) / self.image_deviation
        levels = self.levels(x.contiguous(memory_format=torch.channels_last))
        return [levels[stride] for stride in self.strides]

    def take(self, variables: Tree) -> None:
        """jaxad's weights, batch norms folded into them."""
        take_layers(self.convs, variables["layers"])
        self.scale = float(variables["scale"])


class EfficientNetLite0(Encoder):
    """Up to the last block of stride 16; padded as TensorFlow pads."""

    channels = {4: 24, 8: 40, 16: 112}
    mean, deviation = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, strides: tuple[int, ...]):
        super().__init__(strides)
        self.add("stem", 3, 32, 3, stride=2)
        inputs = 32
        self.blocks = _BLOCKS[: _LAST_BLOCK[max(strides)] + 1]
        for number, (size, stride, expansion, outputs) in enumerate(self.blocks):
            name, wide = f"block_{number}", expansion * inputs
            if expansion > 1:
                self.add(f"{name}_expand", inputs, wide, 1)
            self.add(f"{name}_depthwise", wide, wide, size, stride=stride, groups=wide)
            self.add(f"{name}_project", wide, outputs, 1)
            inputs = outputs

    def _strided(self, name: str, x: torch.Tensor) -> torch.Tensor:
        conv = self.convs[name]
        if conv.stride[0] > 1:
            missing = conv.kernel_size[0] - 2  # of an even side
            before = missing // 2
            x = F.pad(x, (before, missing - before, before, missing - before))
        return conv(x)

    def levels(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        found = {}
        x = F.relu6(self._strided("stem", x))
        for number, (_, _, expansion, _) in enumerate(self.blocks):
            name, y = f"block_{number}", x
            if expansion > 1:
                y = F.relu6(self.convs[f"{name}_expand"](y))
            y = F.relu6(self._strided(f"{name}_depthwise", y))
            y = self.convs[f"{name}_project"](y)
            x = x + y if x.shape == y.shape else y
            found[number] = x
        return {stride: found[_LAST_BLOCK[stride]] for stride in self.strides}


class WideResNet50(Encoder):
    """Wide-ResNet-50-2 up to its third stage."""

    channels = {4: 256, 8: 512, 16: 1024}
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, strides: tuple[int, ...]):
        super().__init__(strides)
        self.add("stem", 3, 64, 7, stride=2, padding=3)
        inputs = 64
        self.stages = _STAGES[: _LAST_STAGE[max(strides)]]
        for number, (repeats, first, width, outputs) in enumerate(self.stages, start=1):
            for block in range(repeats):
                name, stride = f"stage_{number}_block_{block}", first if block == 0 else 1
                self.add(f"{name}_conv1", inputs, width, 1)
                self.add(f"{name}_conv2", width, width, 3, stride=stride, padding=1)
                self.add(f"{name}_conv3", width, outputs, 1)
                if block == 0:
                    self.add(f"{name}_shortcut", inputs, outputs, 1, stride=stride)
                inputs = outputs

    def levels(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        found = {}
        x = F.max_pool2d(F.relu(self.convs["stem"](x)), 3, 2, 1)
        for number, (repeats, _, _, _) in enumerate(self.stages, start=1):
            for block in range(repeats):
                name = f"stage_{number}_block_{block}"
                y = F.relu(self.convs[f"{name}_conv1"](x))
                y = F.relu(self.convs[f"{name}_conv2"](y))
                y = self.convs[f"{name}_conv3"](y)
                x = F.relu((self.convs[f"{name}_shortcut"](x) if block == 0 else x) + y)
            found[number] = x
        return {stride: found[_LAST_STAGE[stride]] for stride in self.strides}


_KINDS = {"efficientnet_lite0": EfficientNetLite0, "wide_resnet50_2": WideResNet50}


def make_encoder(name: str, strides: tuple[int, ...]) -> Encoder:
    """The encoder that jaxad has under this name, frozen."""
    return _KINDS[name](strides).eval().requires_grad_(False)
