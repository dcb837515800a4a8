"""Frozen ImageNet encoders in PyTorch, their batch norms folded into the convolutions.

Layers have the names of `jaxad.nn.backbones`, whose folded weights they take. Encoders run without
gradients: activations and sums are computed in place.
"""

import abc

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.twin import Conv, Tree, take_layers

#: Kernel, stride, expansion and channels of EfficientNet-Lite0's inverted bottlenecks.
_BLOCKS = (
    (3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80),
    (3, 1, 6, 80), (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112), (5, 2, 6, 192),
    (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (3, 1, 6, 320),
)  # fmt: skip
#: Stride -> number of its last block.
_LAST_BLOCK = {4: 2, 8: 4, 16: 10, 32: 15}
#: Blocks, first stride, width and channels of Wide-ResNet-50-2's stages.
_STAGES = ((3, 1, 128, 256), (4, 2, 256, 512), (6, 2, 512, 1024))
_LAST_STAGE = {4: 1, 8: 2, 16: 3}


class Encoder(nn.Module, abc.ABC):
    """Maps images in [0, 1], grey or colour, to the features of each of `strides`.

    Attributes:
        channels: stride -> channels of the features.
        deviations: stride -> standard deviation of the features of photographs; jaxad divides by it
            where it uses several strides.
        mean: mean of the training images, per colour.
        deviation: standard deviation of the training images, per colour.
        scale: factor of the features of the coarsest stride, where it is the only one.
    """

    channels: dict[int, int]
    deviations: dict[int, float]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __init__(self, strides: tuple[int, ...]):
        super().__init__()
        self.strides, self.convs, self.scale = strides, nn.ModuleDict(), 1.0

    def add(self, name: str, inputs: int, outputs: int, size: int, **settings: int) -> None:
        """Adds a convolution under jaxad's name."""
        self.convs[name] = Conv(name, inputs, outputs, size, **settings)

    @abc.abstractmethod
    def levels(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        """Returns stride -> features."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        levels = self.levels(images)
        return [levels[stride] for stride in self.strides]

    def take(self, variables: Tree) -> None:
        """Copies jaxad's weights."""
        take_layers(self.convs, variables["layers"])
        self.scale = float(variables["scale"])


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 up to its last block; padded as TensorFlow pads.

    The stem's weights contain the normalisation of the images, whose mean is the same for every
    colour: the padding, zero behind the normalisation, is that mean. For grey images they are also
    summed over the colours.
    """

    channels = {4: 24, 8: 40, 16: 112, 32: 320}
    deviations = {4: 9.3, 8: 8.4, 16: 7.6, 32: 3.4}
    mean, deviation = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, strides: tuple[int, ...]):
        super().__init__(strides)
        self.add("stem", 3, 32, 3, stride=2)
        self.register_buffer("grey_stem", torch.zeros(32, 1, 3, 3))
        inputs = 32
        self.blocks = _BLOCKS[: _LAST_BLOCK[max(strides)] + 1]
        for number, (size, stride, expansion, outputs) in enumerate(self.blocks):
            name, wide = f"block_{number}", expansion * inputs
            if expansion > 1:
                self.add(f"{name}_expand", inputs, wide, 1)
            self.add(f"{name}_depthwise", wide, wide, size, stride=stride, groups=wide)
            self.add(f"{name}_project", wide, outputs, 1)
            inputs = outputs

    def take(self, variables: Tree) -> None:
        super().take(variables)
        stem = self.convs["stem"]
        with torch.no_grad():
            stem.weight /= self.deviation[0]
            stem.bias -= self.mean[0] * stem.weight.sum(dim=(1, 2, 3))
            self.grey_stem.copy_(stem.weight.sum(dim=1, keepdim=True))

    def _pad(self, x: torch.Tensor, size: int, value: float = 0.0) -> torch.Tensor:
        """Pads maps of even sides for a kernel of `size` and stride 2."""
        missing = size - 2
        before = missing // 2
        return F.pad(x, (before, missing - before, before, missing - before), value=value)

    def _depthwise(self, name: str, x: torch.Tensor) -> torch.Tensor:
        conv = self.convs[name]
        return conv(self._pad(x, conv.kernel_size[0]) if conv.stride[0] > 1 else x)

    def levels(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        levels, stem = {}, self.convs["stem"]
        weight = self.grey_stem if images.shape[1] == 1 else stem.weight
        x = F.conv2d(self._pad(images, 3, self.mean[0]), weight, stem.bias, stride=2)
        x = F.relu6(x, inplace=True)
        for number, (_, _, expansion, _) in enumerate(self.blocks):
            name, y = f"block_{number}", x
            if expansion > 1:
                y = F.relu6(self.convs[f"{name}_expand"](y), inplace=True)
            y = F.relu6(self._depthwise(f"{name}_depthwise", y), inplace=True)
            y = self.convs[f"{name}_project"](y)
            x = y.add_(x) if x.shape == y.shape else y
            levels[number] = x
        return {stride: levels[_LAST_BLOCK[stride]] for stride in self.strides}


class WideResNet50(Encoder):
    """Wide-ResNet-50-2 up to its third stage."""

    channels = {4: 256, 8: 512, 16: 1024}
    deviations = {4: 1.0, 8: 1.0, 16: 1.0}
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, strides: tuple[int, ...]):
        super().__init__(strides)
        deviation, mean = (
            torch.tensor(values).reshape(1, 3, 1, 1) for values in (self.deviation, self.mean)
        )
        self.register_buffer("image_factor", 1 / deviation)
        self.register_buffer("image_offset", -mean / deviation)
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

    def levels(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        levels = {}
        x = torch.addcmul(self.image_offset, images, self.image_factor)
        x = self.convs["stem"](x.contiguous(memory_format=torch.channels_last))
        x = F.max_pool2d(F.relu(x, inplace=True), 3, 2, 1)
        for number, (repeats, _, _, _) in enumerate(self.stages, start=1):
            for block in range(repeats):
                name = f"stage_{number}_block_{block}"
                y = F.relu(self.convs[f"{name}_conv1"](x), inplace=True)
                y = F.relu(self.convs[f"{name}_conv2"](y), inplace=True)
                y = self.convs[f"{name}_conv3"](y)
                shortcut = self.convs[f"{name}_shortcut"](x) if block == 0 else x
                x = F.relu(y.add_(shortcut), inplace=True)
            levels[number] = x
        return {stride: levels[_LAST_STAGE[stride]] for stride in self.strides}


_KINDS = {"efficientnet_lite0": EfficientNetLite0, "wide_resnet50_2": WideResNet50}


def make_encoder(name: str, strides: tuple[int, ...]) -> Encoder:
    """Returns the frozen encoder that jaxad has under this name."""
    return _KINDS[name](strides).eval().requires_grad_(False)
