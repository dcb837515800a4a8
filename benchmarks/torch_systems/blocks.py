"""Convolutional blocks with the names of `jaxad.nn.blocks` and `jaxad.nn.autoencoder`."""

import torch
from torch import nn

from torch_systems.twin import BatchNorm, Config, Conv, Dense, GroupNorm, Up

_GROUP = 8  # channels of a group of group norm
_SLOPE = 0.2  # of leaky ReLU in encoders and generators


def make_norm(kind: str, path: str, features: int) -> nn.Module:
    """Returns the normalisation of a kind that `jaxad.nn.blocks.Norm` has."""
    if kind == "group":
        return GroupNorm(f"{path}/GroupNorm_0", features // _GROUP, features)
    if kind == "layer":
        return GroupNorm(f"{path}/LayerNorm_0", 1, features)
    return BatchNorm(f"{path}/BatchNorm_0", features) if kind == "batch" else nn.Identity()


class Residual(nn.Module):
    """Applies x + conv3x3(leaky relu(norm(x))) `depth` times.

    Args:
        path: path of jaxad's block.
        width: number of channels.
        depth: number of convolutions.
        norm: kind of normalisation.
        slope: negative slope of leaky ReLU.
    """

    def __init__(self, path: str, width: int, depth: int, norm: str = "none", slope: float = 0.01):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                make_norm(norm, f"{path}/Norm_{number}", width),
                nn.LeakyReLU(slope, inplace=norm != "none"),  # without a norm, x is still needed
                Conv(f"{path}/Conv_{number}", width, width, 3),
            )
            for number in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return x


class Encoder(nn.Module):
    """Maps images to vectors [B, outputs]; also returns the last features [B, C, h, w].

    Args:
        path: path of jaxad's network.
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
            down = f"{path}/Down_{level}"
            levels += [
                Conv(f"{down}/Dense_0", inputs, width, 2, stride=2),
                Residual(f"{down}/Residual_0", width, depth, norm, _SLOPE),
                make_norm(norm, f"{path}/Norm_{level}", width),
                nn.LeakyReLU(_SLOPE, inplace=True),
            ]
            inputs = width
        self.levels = nn.Sequential(*levels)
        side = config["data"]["image_size"] >> len(widths)
        self.dense = Dense(f"{path}/Dense_0", side * side * inputs, outputs)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.levels(images)
        return self.dense(features.permute(0, 2, 3, 1).flatten(1)), features


class Generator(nn.Module):
    """Maps vectors to images; mirrors an `Encoder`.

    Args:
        path: path of jaxad's network.
        config: the config, whose `widths`, `depth`, `latents` and `norm` apply.
        bounded: whether a sigmoid keeps the images in (0, 1).
    """

    def __init__(self, path: str, config: Config, *, bounded: bool = True):
        super().__init__()
        model, channels = config["model"], config["data"]["channels"]
        widths, norm = model["widths"], model["norm"]
        self.width, self.side = widths[-1], config["data"]["image_size"] >> len(widths)
        self.bounded = bounded
        self.dense = Dense(f"{path}/Dense_0", model["latents"], self.side**2 * self.width)
        levels: list[nn.Module] = []
        inputs, outputs = self.width, (*widths[-2::-1], channels)
        for level, features in enumerate(outputs):
            depth = model["depth"] if level + 1 < len(outputs) else 0
            up = f"{path}/Up_{level}"
            levels += [
                make_norm(norm, f"{path}/Norm_{level}", inputs),
                Residual(f"{up}/Residual_0", inputs, depth, norm, _SLOPE),
                nn.LeakyReLU(_SLOPE, inplace=depth > 0),
                Up(f"{up}/Dense_0", inputs, features),
            ]
            inputs = features
        self.levels = nn.Sequential(*levels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.dense(z).reshape(len(z), self.side, self.side, self.width)
        x = self.levels(x.permute(0, 3, 1, 2))
        return torch.sigmoid(x) if self.bounded else x
