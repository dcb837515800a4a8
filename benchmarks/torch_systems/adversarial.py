"""Convolutional encoders and generators of vectors, and the base of systems of several networks.

Layers have the names of `jaxad.nn.autoencoder` and `jaxad.nn.blocks`, whose weights they take.
"""

import abc
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.twin import BatchNorm, Config, Conv, Layer, Tree, Twin, Up, take_layers

_SLOPE = 0.2
_GROUP = 8


class Dense(nn.Linear, Layer):
    """A dense layer of vectors."""

    def __init__(self, path: str, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.path = path

    def take(self, weights: Tree) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(weights["kernel"].T.copy()))
            self.bias.copy_(torch.from_numpy(weights["bias"].copy()))


class GroupNorm(nn.GroupNorm, Layer):
    """Group norm, of one group as layer norm; flax's epsilon is 1e-6."""

    def __init__(self, path: str, groups: int, features: int):
        super().__init__(groups, features, eps=1e-6)
        self.path = path

    def take(self, weights: Tree) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(weights["scale"].copy()))
            self.bias.copy_(torch.from_numpy(weights["bias"].copy()))


def make_norm(kind: str, path: str, features: int) -> nn.Module:
    """Returns the normalisation that `jaxad.nn.blocks.Norm` has for this kind."""
    if kind == "group":
        return GroupNorm(f"{path}/GroupNorm_0", features // _GROUP, features)
    if kind == "layer":
        return GroupNorm(f"{path}/LayerNorm_0", 1, features)
    return BatchNorm(f"{path}/BatchNorm_0", features) if kind == "batch" else nn.Identity()


class Residual(nn.Module):
    """x + conv3x3(activation(norm(x))), `depth` times."""

    def __init__(self, path: str, width: int, depth: int, norm: str):
        super().__init__()
        self.norms = nn.ModuleList(
            make_norm(norm, f"{path}/Norm_{number}", width) for number in range(depth)
        )
        self.convs = nn.ModuleList(
            Conv(f"{path}/Conv_{number}", width, width, 3) for number in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + conv(F.leaky_relu(norm(x), _SLOPE))
        return x


class Encoder(nn.Module):
    """Maps images to vectors [B, outputs]; also returns the last features [B, C, h, w].

    Args:
        path: of the network in jaxad's parameters.
        config: the config, whose `widths` and `depth` apply.
        outputs: length of the vector.
        norm: kind of normalisation.
    """

    def __init__(self, path: str, config: Config, outputs: int, norm: str):
        super().__init__()
        widths, inputs = config["model"]["widths"], config["data"]["channels"]
        levels: list[nn.Module] = []
        for level, width in enumerate(widths):
            depth = config["model"]["depth"] if level else 0
            levels += [
                Conv(f"{path}/Down_{level}/Dense_0", inputs, width, 2, stride=2),
                Residual(f"{path}/Down_{level}/Residual_0", width, depth, norm),
                make_norm(norm, f"{path}/Norm_{level}", width),
                nn.LeakyReLU(_SLOPE),
            ]
            inputs = width
        self.levels = nn.Sequential(*levels)
        side = config["data"]["image_size"] >> len(widths)
        self.dense = Dense(f"{path}/Dense_0", side * side * inputs, outputs)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.levels(images)
        return self.dense(features.permute(0, 2, 3, 1).flatten(1)), features


class Generator(nn.Module):
    """Maps vectors to images in (0, 1); mirrors an `Encoder`."""

    def __init__(self, path: str, config: Config):
        super().__init__()
        model, channels = config["model"], config["data"]["channels"]
        widths = model["widths"]
        self.width, self.side = widths[-1], config["data"]["image_size"] >> len(widths)
        self.dense = Dense(f"{path}/Dense_0", model["latents"], self.side**2 * self.width)
        levels: list[nn.Module] = []
        inputs, outputs = self.width, (*widths[-2::-1], channels)
        for level, features in enumerate(outputs):
            depth = model["depth"] if level + 1 < len(outputs) else 0
            levels += [
                make_norm(model["norm"], f"{path}/Norm_{level}", inputs),
                Residual(f"{path}/Up_{level}/Residual_0", inputs, depth, model["norm"]),
                nn.LeakyReLU(_SLOPE),
                Up(f"{path}/Up_{level}/Dense_0", inputs, features),
            ]
            inputs = features
        self.levels = nn.Sequential(*levels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.dense(z).reshape(len(z), self.side, self.side, self.width)
        return torch.sigmoid(self.levels(x.permute(0, 3, 1, 2)))


class AdversarialTwin(Twin):
    """A system whose networks have losses of their own and alternate by a schedule."""

    @abc.abstractmethod
    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each network, by jaxad's name."""

    @abc.abstractmethod
    def draw_noise(self, count: int) -> tuple[torch.Tensor, ...]:
        """Returns the random numbers of an update with this many images."""

    @abc.abstractmethod
    def network_losses(
        self, images: torch.Tensor, networks: Sequence[str], noise: tuple[torch.Tensor, ...]
    ) -> dict[str, torch.Tensor]:
        """Returns the loss of each image, [B], for each of the networks that an update trains."""

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        """Returns the sum of all networks' losses, [B]."""
        noise = self.draw_noise(len(images))
        return sum(self.network_losses(images, list(self.networks()), noise).values())

    def load(self, variables: Tree) -> None:
        take_layers(self, variables["params"])
        for layer in self.modules():
            assert not isinstance(layer, BatchNorm), "twins of GANs have no batch norm"
