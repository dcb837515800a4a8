"""Base of FastFlow and AE-FLOW in PyTorch: `jaxad.models.flow_levels`."""

import math

import torch
from torch import nn

from torch_systems.encoders import make_encoder
from torch_systems.flow import HALF_LOG_2PI, Flow
from torch_systems.twin import Config, TrainedTwin, Tree

#: z' of every level, [B, rows, columns, C], and the log-det of every position.
Transformed = list[tuple[torch.Tensor, torch.Tensor]]
_TOP = 0.1


class Whitening(nn.Module):
    """The fitted linear step at each place, and the map from z' to what a decoder takes.

    Each is one batched product. The step's matrix contains the scale of the features, the map's
    contains the order of the channels of z'.
    """

    def __init__(self, rows: int, columns: int, channels: int, decodes: bool):
        super().__init__()
        places = rows * columns
        self.register_buffer("matrix", torch.zeros(places, channels, channels))
        self.register_buffer("shift", torch.zeros(places, 1, channels))
        self.register_buffer("log_det", torch.zeros(rows, columns))
        if decodes:
            self.register_buffer("mean", torch.zeros(places, 1, channels))
            self.register_buffer("inverse", torch.zeros(places, channels, channels))

    def take(self, step: Tree, factor: float, order: torch.Tensor) -> None:
        """Takes jaxad's step.

        Args:
            step: `mean`, `matrix` and, for a decoder, `inverse`.
            factor: factor of the features that jaxad's step takes.
            order: channels of the features in the order of z'.
        """
        parts = {name: torch.from_numpy(values.copy()) for name, values in step.items()}
        mean = parts["mean"].reshape(self.shift.shape)
        matrix = parts["matrix"].reshape(self.matrix.shape).transpose(1, 2)
        self.log_det.copy_(parts["matrix"].diagonal(dim1=-2, dim2=-1).log().sum(dim=-1))
        self.matrix.copy_(matrix * factor)
        self.shift.copy_(-mean @ matrix)
        if "inverse" in parts:
            inverse = parts["inverse"].reshape(self.matrix.shape).transpose(1, 2)
            self.mean.copy_(mean)
            self.inverse.copy_(inverse[:, order])

    def _apply_places(
        self, x: torch.Tensor, matrix: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        """Returns x at each place times the place's matrix plus its shift."""
        places = x.flatten(1, 2).transpose(0, 1)
        return torch.baddbmm(shift, places, matrix).transpose(0, 1).unflatten(1, x.shape[1:3])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self._apply_places(z, self.matrix, self.shift)

    def decodable(self, z_prime: torch.Tensor) -> torch.Tensor:
        """Returns features again, without what the flow has learnt."""
        return self._apply_places(z_prime, self.inverse, self.mean)


class FlowLevels(TrainedTwin):
    """A flow on the features of each stride of a frozen encoder.

    `encode` returns the features in the encoder's own scale if a whitening follows.
    """

    decodes = False

    def __init__(self, config: Config):
        super().__init__()
        model = config["model"]
        self.size, strides = config["data"]["image_size"], model["strides"]
        self.encoder = make_encoder(model["backbone"], strides)
        channels = self.encoder.channels
        self.shapes = [(self.size // s, self.size // s, channels[s]) for s in strides]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.dimensions = sum(self.sizes)
        self.channels = sum(channels for _, _, channels in self.shapes)
        whitens = model["whitening"] == "place"
        self.flows = nn.ModuleList(
            Flow(channels, model, model["subnet"], whitens) for _, _, channels in self.shapes
        )
        self.whitenings = nn.ModuleList(
            Whitening(*shape, self.decodes) for shape in self.shapes if whitens
        )

    def load(self, variables: Tree) -> None:
        self.encoder.take(variables["encoder"])
        for level, flow in enumerate(self.flows):
            flow.take(variables, f"flow_{level}")
        for level, whitening in enumerate(self.whitenings):
            factor = 1 / self.encoder.deviations[self.encoder.strides[level]]
            order = self.flows[level].total_order()
            whitening.take(variables["whitening"][f"flow_{level}"], factor, order)

    def normalise(self, level: torch.Tensor, stride: int) -> torch.Tensor:
        """Normalises the features of a stride if no whitening follows."""
        deviation = self.encoder.deviations[stride]
        return level if deviation == 1 else level / deviation

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of all levels, flattened and concatenated, [B, numbers]."""
        levels = self.encoder(images)
        if not self.whitenings:
            strides = self.encoder.strides
            levels = [self.normalise(*level) for level in zip(levels, strides, strict=True)]
        return torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in levels], dim=1)

    def transform(self, features: torch.Tensor) -> Transformed:
        """Returns z' and each position's part of the log-det by level."""
        transformed = []
        for level, part in enumerate(features.split(self.sizes, dim=1)):
            z = part.unflatten(1, self.shapes[level])
            if self.whitenings:
                z = self.whitenings[level](z)
            z_prime, log_det = self.flows[level](z)
            if self.whitenings:
                log_det = log_det + self.whitenings[level].log_det
            transformed.append((z_prime, log_det))
        return transformed

    def batch_features(self, images: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Returns the given features in float32, or computes them without gradients."""
        if features is not None:
            return features.float()
        with torch.no_grad():
            return self.encode(images)

    def latent_nll(self, transformed: Transformed) -> torch.Tensor:
        """Returns -log p(z') per dimension, [B]."""
        squares = sum((z_prime**2).sum(dim=(1, 2, 3)) for z_prime, _ in transformed)
        return squares * (0.5 / self.dimensions) + HALF_LOG_2PI

    def feature_nll(self, transformed: Transformed) -> torch.Tensor:
        """Returns -log p(z) per dimension, [B]."""
        log_det = sum(log_det.sum(dim=(1, 2)) for _, log_det in transformed)
        return self.latent_nll(transformed) - log_det / self.dimensions

    def top_tenth(self, transformed: Transformed) -> torch.Tensor:
        """Returns the mean of -log p(z) at the least likely places, per channel, [B]."""
        means = []
        for z_prime, log_det in transformed:
            nll = (0.5 * (z_prime**2).sum(dim=-1) - log_det).flatten(1)
            count = math.ceil(_TOP * nll.shape[1])
            means.append(nll.topk(count, dim=1, sorted=False).values.mean(dim=1))
        return sum(means) / self.channels + HALF_LOG_2PI
