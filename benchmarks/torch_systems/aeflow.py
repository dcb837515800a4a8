"""AE-FLOW in PyTorch: `jaxad.models.ae_flow`."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.encoders import make_encoder
from torch_systems.flow import make_flow, take_flow
from torch_systems.twin import Config, Conv, Tree, Twin, Up, subtree, take_layers

_WINDOW, _DEVIATION = 11, 1.5


def similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean SSIM of each image; two one-dimensional convolutions a channel for the window."""
    places = torch.arange(_WINDOW) - _WINDOW // 2
    window = torch.exp(-0.5 * (places / _DEVIATION) ** 2)
    window = (window / window.sum()).reshape(1, 1, 1, -1)

    def blur(z: torch.Tensor) -> torch.Tensor:
        z = z.reshape(-1, 1, *z.shape[2:])
        return F.conv2d(F.conv2d(z, window), window.transpose(2, 3))

    a, b = blur(x), blur(y)
    variance_a, variance_b = blur(x * x) - a * a, blur(y * y) - b * b
    covariance = blur(x * y) - a * b
    found = (2 * a * b + 1e-4) * (2 * covariance + 9e-4)
    found = found / ((a * a + b * b + 1e-4) * (variance_a + variance_b + 9e-4))
    return found.reshape(len(x), -1).mean(dim=1)


class AEFlow(Twin):
    """A frozen encoder, a flow and a decoder; the config's default losses and scores."""

    def __init__(self, config: Config):
        super().__init__()
        model, channels = config["model"], config["data"]["channels"]
        assert (model["permutation"], model["moves"]) == ("random", "second")
        assert model["output_scale"] == model["global_scale"] == 0.1
        assert (model["reconstruction_loss"], model["flow_loss"]) == ("mse", "per_dimension")
        assert (model["flow_score"], model["whitening"]) == ("exp_mean", "none")
        assert tuple(model["strides"]) == (16,)
        self.alpha, self.beta = model["alpha"], model["beta"]
        self.encoder = make_encoder(model["backbone"], (16,))
        inputs, side = self.encoder.channels[16], config["data"]["image_size"] // 16
        self.channels, self.side, self.dimensions = inputs, side, inputs * side * side
        self.flow = make_flow(inputs, side, side, model["num_blocks"], model["subnet"])
        widths = model["decoder_widths"] or [16 * -(-inputs // (16 * n)) for n in (2, 4, 16)]
        parts: list[nn.Module] = []
        for number, width in enumerate(widths):
            parts += [Up(f"Dense_{number}", inputs, width), nn.ReLU()]
            parts += [Conv(f"Conv_{number}", width, width, 3), nn.ReLU()]
            inputs = width
        self.decoder = nn.Sequential(*parts, Up(f"Dense_{len(widths)}", inputs, channels))

    def load(self, variables: Tree) -> None:
        self.encoder.take(variables["encoder"])
        take_layers(self.decoder, subtree(variables, "params/decoder"))
        state = variables.get("batch_stats", {}).get("flow_0", {})
        permutations = variables["permutation"]["flow_0"]
        take_flow(self.flow, variables["params"]["flow_0"], state, permutations)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The features, place by place, [B, numbers]."""
        features = self.encoder(images)[0] * self.encoder.scale
        return features.permute(0, 2, 3, 1).flatten(1)

    def _passed(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z' and the log-det."""
        maps = features.reshape(-1, self.side, self.side, self.channels)
        return self.flow(maps.permute(0, 3, 1, 2))

    def _density(self, z_prime: torch.Tensor) -> torch.Tensor:
        """-log p(z') per dimension."""
        return 0.5 * (z_prime**2).mean(dim=(1, 2, 3)) + 0.5 * math.log(2 * math.pi)

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        if features is None:
            with torch.no_grad():
                features = self.encode(images)
        z_prime, log_det = self._passed(features.float())
        flow = self._density(z_prime) - log_det / self.dimensions
        squared = ((images - self.decoder(z_prime)) ** 2).mean(dim=(1, 2, 3))
        return self.alpha * flow + (1 - self.alpha) * squared

    def score(self, images: torch.Tensor) -> torch.Tensor:
        z_prime, _ = self._passed(self.encode(images))
        flow = -torch.exp(-self._density(z_prime))
        return self.beta * flow - (1 - self.beta) * similarity(images, self.decoder(z_prime))
