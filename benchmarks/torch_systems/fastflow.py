"""FastFlow in PyTorch: `jaxad.models.fast_flow`."""

import math

import torch
import torch.nn.functional as F

from torch_systems.flow import HALF_LOG_2PI
from torch_systems.flow_levels import FlowLevels, Transformed
from torch_systems.twin import Config


class FastFlow(FlowLevels):
    """A flow for each level of a frozen encoder."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.image_score = config["model"]["image_score"]

    def normalise(self, level: torch.Tensor, stride: int) -> torch.Tensor:
        return F.layer_norm(level, level.shape[1:])

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        return self.feature_nll(self.transform(self.batch_features(images, features)))

    def _map(self, transformed: Transformed) -> torch.Tensor:
        """Returns the anomaly map, [B, H, W]."""
        levels = [
            F.interpolate(
                -0.5 * (z_prime**2).mean(dim=-1)[:, None],
                size=(self.size, self.size), mode="bilinear",
            )
            for z_prime, _ in transformed
        ]  # fmt: skip
        mixed = torch.logsumexp(torch.cat(levels, dim=1), dim=1)
        return math.log(len(levels)) + HALF_LOG_2PI - mixed

    def score(self, images: torch.Tensor) -> torch.Tensor:
        transformed = self.transform(self.encode(images))
        if self.image_score == "top_tenth":
            return self.top_tenth(transformed)
        pixel = self._map(transformed)
        return pixel.amax(dim=(1, 2)) if self.image_score == "max" else pixel.mean(dim=(1, 2))
