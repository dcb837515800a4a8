"""Base class of the twins, their layers, and the transfer of jaxad's weights to them."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Config = dict[str, Any]
Tree = Mapping[str, Any]


class Twin(nn.Module, abc.ABC):
    """A system in PyTorch. Images are [B, C, H, W] in [0, 1], channels last in memory."""

    @abc.abstractmethod
    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the score of each image, [B]."""

    def encode(self, images: torch.Tensor) -> torch.Tensor | None:
        """Returns the features of the frozen encoder, or None if the system has no encoder."""
        return None

    @abc.abstractmethod
    def load(self, variables: Tree) -> None:
        """Copies jaxad's variables, NumPy arrays, into the twin."""


class TrainedTwin(Twin):
    """A system that is trained with gradients."""

    @abc.abstractmethod
    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        """Returns the loss of each image, [B].

        Args:
            images: the batch.
            features: results of `encode` for the batch; None to compute them.
            sample: whether latents and views are drawn; otherwise latents are posterior means, and
                the loss is the mean over all views.
        """


class Layer(nn.Module, abc.ABC):
    """A layer that takes its weights from a layer of jaxad.

    Attributes:
        path: path of jaxad's layer in the tree of parameters, such as `stem/layers_0/Dense_0`.
    """

    path: str

    @abc.abstractmethod
    def take(self, weights: Tree) -> None:
        """Copies the weights of jaxad's layer."""


def copy(target: torch.Tensor, source: np.ndarray) -> None:
    """Copies a NumPy array into a tensor of the same shape."""
    assert tuple(target.shape) == source.shape, (target.shape, source.shape)
    with torch.no_grad():
        target.copy_(torch.from_numpy(source.copy()))


class Conv(nn.Conv2d, Layer):
    """A convolution with a kernel of `size`, by default padded to the same size at stride 1.

    With size 1, or size 2 and stride 2, it is jaxad's dense layer of each window.
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
        copy(self.weight, kernel.transpose(3, 2, 0, 1))
        copy(self.bias, weights["bias"])


class Dense(nn.Linear, Layer):
    """A dense layer over the last axis."""

    def __init__(self, path: str, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.path = path

    def take(self, weights: Tree) -> None:
        copy(self.weight, weights["kernel"].T)
        copy(self.bias, weights["bias"])


class Up(Layer):
    """A transposed convolution of kernel 2 and stride 2: a dense layer and a rearrangement.

    This is faster than `nn.ConvTranspose2d` in PyTorch too.
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
        copy(self.dense.weight, weights["kernel"].T)
        copy(self.dense.bias, weights["bias"])


class BatchNorm(nn.BatchNorm2d, Layer):
    """Batch norm; flax's momentum of 0.9 is PyTorch's 0.1."""

    def __init__(self, path: str, features: int):
        super().__init__(features, eps=1e-5, momentum=0.1)
        self.path = path

    def take(self, weights: Tree) -> None:
        copy(self.weight, weights["scale"])
        copy(self.bias, weights["bias"])

    def take_statistics(self, statistics: Tree) -> None:
        """Copies the running mean and variance of jaxad's layer."""
        copy(self.running_mean, statistics["mean"])
        copy(self.running_var, statistics["var"])


class GroupNorm(nn.GroupNorm, Layer):
    """Group norm, and with one group jaxad's layer norm; epsilon is flax's."""

    def __init__(self, path: str, groups: int, features: int):
        super().__init__(groups, features, eps=1e-6)
        self.path = path

    def take(self, weights: Tree) -> None:
        copy(self.weight, weights["scale"])
        copy(self.bias, weights["bias"])


def subtree(tree: Tree, path: str) -> Any:
    """Returns the part of a tree at a path such as `a/b`."""
    for name in path.split("/"):
        tree = tree[name]
    return tree


def take_layers(module: nn.Module, params: Tree, batch_stats: Tree | None = None) -> None:
    """Copies the weights of every `Layer` in a module, and the statistics of batch norms."""
    for layer in module.modules():
        if isinstance(layer, Layer):
            layer.take(subtree(params, layer.path))
        if isinstance(layer, BatchNorm):
            assert batch_stats is not None, layer.path
            layer.take_statistics(subtree(batch_stats, layer.path))


def squared_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Returns the squared error of each image, summed over pixels and channels; [B]."""
    return F.mse_loss(x, y, reduction="none").sum(dim=(1, 2, 3))


def num_parameters(twin: nn.Module) -> int:
    """Returns the number of trained parameters."""
    return sum(values.numel() for values in twin.parameters() if values.requires_grad)
