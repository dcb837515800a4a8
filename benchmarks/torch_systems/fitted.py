"""Base of systems that are fitted to the features of a frozen encoder in one pass."""

import abc
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from torch_systems.encoders import make_encoder
from torch_systems.twin import Config, Tree, Twin

Batches = Iterable[torch.Tensor]
Compile = Callable[[Callable], Callable]
Fitted = dict[str, np.ndarray]


def eager(function: Callable) -> Callable:
    """Returns the function as it is."""
    return function


class FittedTwin(Twin):
    """A system without gradients; `fit` returns and keeps what it estimates.

    Attributes:
        shapes: channels, rows and columns of each level of the encoder.
    """

    def __init__(self, config: Config):
        super().__init__()
        model, size = config["model"], config["data"]["image_size"]
        self.encoder = make_encoder(model["backbone"], model["strides"])
        self.shapes = [
            (self.encoder.channels[stride], size // stride, size // stride)
            for stride in model["strides"]
        ]
        self.deviations = [self.encoder.deviations[stride] for stride in model["strides"]]
        self.side = size // min(model["strides"])
        self.num_channels = sum(self.encoder.channels[stride] for stride in model["strides"])

    @abc.abstractmethod
    def fit(self, batches: Batches, rng: np.random.Generator, compiled: Compile = eager) -> Fitted:
        """Fits the system to batches of features, as jaxad's `fit` does.

        Args:
            batches: features [B, numbers] of the training images.
            rng: source of random choices.
            compiled: what compiles the functions that a fit calls often.

        Returns:
            The parameters by jaxad's name.
        """

    def load(self, variables: Tree) -> None:
        self.encoder.take(variables["encoder"])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The features of all levels, normalised and one after another, [B, numbers]."""
        levels = zip(self.encoder(images), self.deviations, strict=True)
        return torch.cat(
            [(level / deviation).permute(0, 2, 3, 1).flatten(1) for level, deviation in levels],
            dim=1,
        )

    def levels(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Returns the map of each level, [B, C, rows, columns], float32."""
        parts = features.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [
            part.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2).float()
            for part, (channels, rows, columns) in zip(parts, self.shapes, strict=True)
        ]
