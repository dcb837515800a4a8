"""FastFlow in PyTorch: `jaxad.models.fast_flow`."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.encoders import make_encoder
from torch_systems.flow import make_flow, take_flow
from torch_systems.twin import Config, Tree, Twin


class FastFlow(Twin):
    """A flow for each level of a frozen encoder."""

    def __init__(self, config: Config):
        super().__init__()
        model = config["model"]
        self.size, self.image_score = config["data"]["image_size"], model["image_score"]
        self.encoder = make_encoder(model["backbone"], model["strides"])
        self.shapes = [
            (self.encoder.channels[stride], self.size // stride, self.size // stride)
            for stride in model["strides"]
        ]
        self.flows = nn.ModuleList(
            make_flow(*shape, model["num_blocks"], model["subnet"]) for shape in self.shapes
        )
        self.dimensions = sum(math.prod(shape) for shape in self.shapes)

    def load(self, variables: Tree) -> None:
        self.encoder.take(variables["encoder"])
        for level, flow in enumerate(self.flows):
            name = f"flow_{level}"
            state = variables.get("batch_stats", {}).get(name, {})
            take_flow(flow, variables["params"][name], state, variables["permutation"][name])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The features of all levels, normalised and one after another, [B, numbers]."""
        return torch.cat(
            [
                F.layer_norm(level, level.shape[1:]).permute(0, 2, 3, 1).flatten(1)
                for level in self.encoder(images)
            ],
            dim=1,
        )

    def _passed(self, features: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """z' and the log-det of each level."""
        parts = features.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [
            flow(part.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2))
            for flow, part, (channels, rows, columns) in zip(
                self.flows, parts, self.shapes, strict=True
            )
        ]

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        if features is None:
            with torch.no_grad():
                features = self.encode(images)
        nll = [
            0.5 * (z_prime**2).sum(dim=(1, 2, 3)) - log_det
            for z_prime, log_det in self._passed(features.float())
        ]
        return sum(nll) / self.dimensions + 0.5 * math.log(2 * math.pi)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        levels = [
            F.interpolate(
                -0.5 * (z_prime**2).mean(dim=1, keepdim=True) - 0.5 * math.log(2 * math.pi),
                size=(self.size, self.size), mode="bilinear",
            )
            for z_prime, _ in self._passed(self.encode(images))
        ]  # fmt: skip
        pixel = math.log(len(levels)) - torch.logsumexp(torch.cat(levels, dim=1), dim=1)
        return pixel.amax(dim=(1, 2)) if self.image_score == "max" else pixel.mean(dim=(1, 2))
