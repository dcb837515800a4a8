"""pchVAE in PyTorch: `jaxad.models.hierarchical_vae` and `jaxad.models.decomposition`."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.twin import Config, Conv, Tree, Twin, Up, take_layers

Gaussian = tuple[torch.Tensor, torch.Tensor]


class Residual(nn.Module):
    """x + conv3x3(leaky relu(x)), `depth` times."""

    def __init__(self, path: str, width: int, depth: int):
        super().__init__()
        self.convs = nn.ModuleList(
            Conv(f"{path}/Conv_{number}", width, width, 3) for number in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x))
        return x


def _down(path: str, inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(
        Conv(f"{path}/Dense_0", inputs, outputs, 2, stride=2),
        Residual(f"{path}/Residual_0", outputs, depth),
        nn.LeakyReLU(),
    )


def _up(path: str, inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(f"{path}/Residual_0", inputs, depth),
        nn.LeakyReLU(),
        Up(f"{path}/Dense_0", inputs, outputs),
    )


def _drawn(posterior: Gaussian, sample: bool) -> torch.Tensor:
    mean, log_variance = posterior
    return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if sample else mean


def _kl(posterior: Gaussian) -> torch.Tensor:
    mean, log_variance = posterior
    return 0.5 * (mean**2 + torch.expm1(log_variance) - log_variance).sum(dim=(1, 2, 3))


class PchVAE(Twin):
    """Without norms, z2 conditioned on z1, scores at the posterior means: the config's defaults."""

    def __init__(self, config: Config):
        super().__init__()
        model = config["model"]
        assert model["norm"] == "none" and model["condition_z2"] and not model["score_samples"]
        channels = config["data"]["channels"]
        half, quarter, eighth, sixteenth = model["widths"]
        depths = model["depths"]
        high, low = model["latent_channels"]
        self.variance, self.weights = model["variance"], model["weights"]
        self.stem = nn.Sequential(
            _down("stem/layers_0", channels, half, depths[0]),
            _down("stem/layers_2", half, quarter, depths[1]),
        )
        self.high_encoder = nn.Sequential(
            _down("high_encoder/layers_0", quarter, eighth, depths[2]),
            _down("high_encoder/layers_2", eighth, sixteenth, depths[3]),
            Conv("high_posterior/Dense_0", sixteenth, 2 * high, 1),
        )
        self.trunk = nn.Sequential(
            Conv("trunk/layers_0", high, sixteenth, 1),
            _up("trunk/layers_1", sixteenth, eighth, depths[3]),
            _up("trunk/layers_2", eighth, quarter, depths[2]),
        )
        self.tail = nn.Sequential(
            _up("tail/layers_0", quarter, half, depths[1]),
            _up("tail/layers_1", half, channels, depths[0]),
        )
        self.low_encoder = nn.Sequential(
            Conv("low_encoder/layers_0", 2 * quarter, quarter, 3),
            nn.LeakyReLU(),
            Conv("low_posterior/Dense_0", quarter, 2 * low, 1),
        )
        self.low_decoder = nn.Sequential(
            Conv("low_decoder/layers_0", low + quarter, quarter, 3),
            _up("low_decoder/layers_1", quarter, half, depths[1]),
            _up("low_decoder/layers_2", half, channels, depths[0]),
        )

    def load(self, variables: Tree) -> None:
        take_layers(self, variables["params"])

    def _levels(
        self, x: torch.Tensor, sample: bool
    ) -> tuple[torch.Tensor, torch.Tensor, Gaussian, Gaussian]:
        """x_high, x_low and the posteriors of z1 and z2."""
        features = self.stem(x)
        high: Gaussian = self.high_encoder(features).chunk(2, dim=1)
        u = self.trunk(_drawn(high, sample))
        low: Gaussian = self.low_encoder(torch.cat([features, u], dim=1)).chunk(2, dim=1)
        x_low = self.low_decoder(torch.cat([_drawn(low, sample), u], dim=1))
        return self.tail(u), x_low, high, low

    def _nll(self, x: torch.Tensor | float, mean: torch.Tensor) -> torch.Tensor:
        per_pixel = (x - mean) ** 2 / self.variance + math.log(2 * math.pi * self.variance)
        return 0.5 * per_pixel.sum(dim=(1, 2, 3))

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        x_high, x_low, high, low = self._levels(images, sample)
        z_low: Gaussian = self.high_encoder(self.stem(x_low)).chunk(2, dim=1)
        x_zero = self.tail(self.trunk(_drawn(z_low, sample)))
        terms = (
            self._nll(images, x_high),
            self._nll(images, x_high + x_low),
            self._nll(0.0, x_zero),
            _kl(high),
            _kl(low),
        )
        return sum(weight * term for weight, term in zip(self.weights, terms, strict=True))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        x_high, x_low, high, low = self._levels(images, sample=False)
        return self._nll(images, x_high + x_low) + _kl(high) + _kl(low)
