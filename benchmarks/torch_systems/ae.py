"""AE in PyTorch: `jaxad.models.autoencoder`."""

import torch

from torch_systems.blocks import Encoder, Generator
from torch_systems.twin import Config, TrainedTwin, Tree, squared_error, take_layers


class AutoEncoder(TrainedTwin):
    """A convolutional autoencoder; the squared error is its loss and its score."""

    def __init__(self, config: Config):
        super().__init__()
        model = config["model"]
        self.to_latents = Encoder("encoder", config, model["latents"], model["norm"])
        self.decoder = Generator("decoder", config, bounded=False)

    def load(self, variables: Tree) -> None:
        take_layers(self, variables["params"], variables.get("batch_stats"))

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        z, _ = self.to_latents(images)
        return squared_error(self.decoder(z), images) / images[0].numel()

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return self.losses(images)
