"""AE-FLOW in PyTorch: `jaxad.models.ae_flow`."""

import torch
from torch import nn

from torch_systems.flow_levels import FlowLevels, Transformed
from torch_systems.twin import Config, Conv, Tree, Up, squared_error, subtree, take_layers

_WINDOW, _DEVIATION = 11, 1.5


class Similarity(nn.Module):
    """Mean SSIM of pairs of images, [B].

    The Gaussian window's means are products with a banded matrix, all five maps in one batch:
    convolutions of a single channel are slow.
    """

    def __init__(self, side: int):
        super().__init__()
        distance = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
        window = torch.exp(-0.5 * (distance / _DEVIATION) ** 2)
        window, places = window / window.sum(), side - _WINDOW + 1
        band = torch.zeros(places, side, dtype=torch.float64)
        for place in range(places):
            band[place, place : place + _WINDOW] = window
        self.register_buffer("band", band.float())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        maps = torch.stack([x, y, x * x, y * y, x * y])
        a, b, xx, yy, xy = self.band @ (maps @ self.band.T)
        product, squares = a * b, a * a + b * b
        similarity = (2 * product + 1e-4) * (2 * (xy - product) + 9e-4)
        similarity = similarity / ((squares + 1e-4) * (xx + yy - squares + 9e-4))
        return similarity.mean(dim=(1, 2, 3))


class Decoder(nn.Module):
    """Maps levels [B, C, rows, columns] to images; coarse levels are doubled and joined to finer.

    Args:
        shapes: (rows, columns, channels) of each level.
        widths: channels after each doubling of the finest level; () for the paper's shares.
        image_channels: channels of the images.
    """

    def __init__(
        self, shapes: list[tuple[int, int, int]], widths: tuple[int, ...], image_channels: int
    ):
        super().__init__()
        self._count = 0
        (side, _, inputs), *finer = sorted(shapes)
        joins = []
        for rows, _, channels in finer:
            steps: list[nn.Module] = []
            while side < rows:
                steps += self._double(inputs, channels)
                inputs, side = channels, 2 * side
            joins.append(nn.Sequential(*steps))
            inputs += channels
        self.joins = nn.ModuleList(joins)
        parts: list[nn.Module] = []
        for width in widths:
            parts += self._double(inputs, width)
            inputs = width
        last = Up(f"Dense_{self._count}", inputs, image_channels)
        self.last = nn.Sequential(*parts, last)

    def _double(self, inputs: int, width: int) -> list[nn.Module]:
        number = self._count
        self._count += 1
        up, conv = Up(f"Dense_{number}", inputs, width), Conv(f"Conv_{number}", width, width, 3)
        return [up, nn.ReLU(), conv, nn.ReLU(inplace=True)]

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        x, *finer = sorted(levels, key=lambda level: level.shape[2])
        for join, level in zip(self.joins, finer, strict=True):
            x = torch.cat([join(x), level], dim=1)
        return self.last(x)


class AEFlow(FlowLevels):
    """A frozen encoder, flows and a decoder."""

    decodes = True

    def __init__(self, config: Config):
        super().__init__(config)
        model = config["model"]
        assert model["flow_loss"] == "per_dimension"
        self.alpha, self.beta = model["alpha"], model["beta"]
        self.flow_score, self.reconstruction = model["flow_score"], model["reconstruction_loss"]
        doublings = min(model["strides"]).bit_length() - 2
        parts = [2 ** (number + 1) for number in range(doublings - 1)] + [16]
        widths = model["decoder_widths"] or [16 * -(-self.channels // (16 * n)) for n in parts]
        self.decoder = Decoder(self.shapes, widths, config["data"]["channels"])
        self.similarity = Similarity(self.size)

    def load(self, variables: Tree) -> None:
        super().load(variables)
        take_layers(self.decoder, subtree(variables, "params/decoder"))

    def _decode(self, transformed: Transformed) -> torch.Tensor:
        levels = [z_prime for z_prime, _ in transformed]
        if self.whitenings:
            steps = zip(self.whitenings, levels, strict=True)
            levels = [whitening.decodable(z_prime) for whitening, z_prime in steps]
        return self.decoder([level.permute(0, 3, 1, 2) for level in levels])

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        transformed = self.transform(self.batch_features(images, features))
        x_hat = self._decode(transformed)
        if self.reconstruction == "ssim":
            reconstruction = 1 - self.similarity(images, x_hat)
        else:
            reconstruction = squared_error(x_hat, images) / images[0].numel()
        flow = self.feature_nll(transformed)
        return self.alpha * flow + (1 - self.alpha) * reconstruction

    def _flow_score(self, transformed: Transformed) -> torch.Tensor:
        if self.flow_score == "top_tenth":
            return self.top_tenth(transformed)
        if self.flow_score == "feature_nll":
            return self.feature_nll(transformed)
        latent = self.latent_nll(transformed)
        return latent if self.flow_score == "nll_mean" else -torch.exp(-latent)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        transformed = self.transform(self.encode(images))
        similarity = self.similarity(images, self._decode(transformed))
        return self.beta * self._flow_score(transformed) - (1 - self.beta) * similarity
