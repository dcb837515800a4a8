"""What every twin offers, its layers, and how they take jaxad's weights."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

Config = dict[str, Any]
Tree = Mapping[str, Any]


class Twin(nn.Module, abc.ABC):
    """A system in PyTorch. Images are [B, C, H, W] in [0, 1], channels last in memory."""

    @abc.abstractmethod
    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        """The loss of each image, [B].

        Args:
            images: of the batch.
            features: what `encode` made of them, where that was kept.
            sample: whether latents are drawn; otherwise they are posterior means.
        """

    @abc.abstractmethod
    def score(self, images: torch.Tensor) -> torch.Tensor:
        """The score of each image, [B]."""

    def encode(self, images: torch.Tensor) -> torch.Tensor | None:
        """Features of the frozen encoder; None where there is none."""
        return None

    @abc.abstractmethod
    def load(self, variables: Tree) -> None:
        """Takes jaxad's variables, as NumPy arrays."""


class Layer(nn.Module, abc.ABC):
    """A layer that knows where jaxad keeps its weights.

    Attributes:
        path: of jaxad's layer in the tree of parameters, such as `stem/layers_0/Dense_0`.
    """

    path: str

    @abc.abstractmethod
    def take(self, weights: Tree) -> None:
        """Copies kernel and bias of jaxad's layer."""


def _copy(target: torch.Tensor, source: np.ndarray) -> None:
    assert tuple(target.shape) == source.shape, (target.shape, source.shape)
    with torch.no_grad():
        target.copy_(torch.from_numpy(source.copy()))


class Conv(nn.Conv2d, Layer):
    """A convolution with a kernel of `size`, padded to the same size where its stride is 1.

    Of kernel 1 and of kernel 2 with stride 2 it is jaxad's dense layer of each window.
    """

    def __init__(
        self, path: str, inputs: int, outputs: int, size: int, *, stride: int = 1,
        padding: int | None = None, groups: int = 1,
    ):  # fmt: skip
        padding = (size // 2 if stride == 1 else 0) if padding is None else padding
        super().__init__(inputs, outputs, size, stride=stride, padding=padding, groups=groups)
        self.path = path

    def take(self, weights: Tree) -> None:
        kernel = weights["kernel"]
        if kernel.ndim == 2:
            kernel = kernel.reshape(*self.kernel_size, self.in_channels, self.out_channels)
        _copy(self.weight, kernel.transpose(3, 2, 0, 1))
        _copy(self.bias, weights["bias"])


class Up(Layer):
    """A transposed convolution of kernel 2 and stride 2, as jaxad has it: a dense layer of each
    place and a rearrangement. In PyTorch too this is the fastest of the ways to write it.
    """

    def __init__(self, path: str, inputs: int, outputs: int):
        super().__init__()
        self.path, self.outputs = path, outputs
        self.dense = nn.Linear(inputs, 4 * outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.dense(x.permute(0, 2, 3, 1))
        batch, rows, columns, _ = y.shape
        y = y.reshape(batch, rows, columns, 2, 2, self.outputs).permute(0, 1, 3, 2, 4, 5)
        return y.reshape(batch, 2 * rows, 2 * columns, self.outputs).permute(0, 3, 1, 2)

    def take(self, weights: Tree) -> None:
        _copy(self.dense.weight, weights["kernel"].T)
        _copy(self.dense.bias, weights["bias"])


class BatchNorm(nn.BatchNorm2d, Layer):
    """Batch norm; flax's momentum of 0.9 is torch's 0.1."""

    def __init__(self, path: str, features: int):
        super().__init__(features, eps=1e-5, momentum=0.1)
        self.path = path

    def take(self, weights: Tree) -> None:
        _copy(self.weight, weights["scale"])
        _copy(self.bias, weights["bias"])


def subtree(tree: Tree, path: str) -> Any:
    """What stands at a path such as `a/b`."""
    for name in path.split("/"):
        tree = tree[name]
    return tree


def take_layers(module: nn.Module, params: Tree) -> None:
    """Gives every `Layer` below a module its weights from jaxad's tree."""
    for layer in module.modules():
        if isinstance(layer, Layer):
            layer.take(subtree(params, layer.path))


def num_parameters(twin: nn.Module) -> int:
    """How many numbers training fits."""
    return sum(one.numel() for one in twin.parameters() if one.requires_grad)
