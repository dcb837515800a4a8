"""GANomaly in PyTorch: `jaxad.models.ganomaly`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.adversarial import AdversarialTwin
from torch_systems.blocks import Encoder, Generator
from torch_systems.twin import Config


class GANomaly(AdversarialTwin):
    """Encoder, decoder and second encoder against a discriminator.

    Every update trains both networks; the images pass through each of them once.
    """

    def __init__(self, config: Config):
        super().__init__()
        model = config["model"]
        latents, norm = model["latents"], model["norm"]
        self.weights = (model["adversarial"], model["contextual"], model["encoding"])
        self.is_squared = model["code_distance"] == "squared"
        self.coder = Encoder("encoder", config, latents, norm)
        self.decoder = Generator("decoder", config)
        self.second_coder = Encoder("second_encoder", config, latents, norm)
        self.discriminator = Encoder("discriminator", config, 1, norm)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each network, by jaxad's name."""
        generator = (self.coder, self.decoder, self.second_coder)
        return {
            "generator": [weight for part in generator for weight in part.parameters()],
            "discriminator": list(self.discriminator.parameters()),
        }

    def draw_noise(self, count: int) -> tuple[torch.Tensor, ...]:
        """Returns nothing: there is no noise."""
        return ()

    def _generate(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns z, x^ and z^."""
        z = self.coder(images)[0]
        x_hat = self.decoder(z)
        return z, x_hat, self.second_coder(x_hat)[0]

    def network_losses(
        self, images: torch.Tensor, networks: Sequence[str], noise: tuple[torch.Tensor, ...]
    ) -> dict[str, torch.Tensor]:
        z, x_hat, z_hat = self._generate(images)
        of_real, features = self.discriminator(images)
        of_fake, reconstructed = self.discriminator(x_hat)
        terms = (
            (features - reconstructed).square().mean(dim=(1, 2, 3)),
            (images - x_hat).abs().mean(dim=(1, 2, 3)),
            (z - z_hat).square().mean(dim=1),
        )
        generator = sum(weight * term for weight, term in zip(self.weights, terms, strict=True))
        # Cross-entropies of the labels 1 and 0.
        entropies = F.softplus(-of_real[:, 0]) + F.softplus(of_fake[:, 0])
        losses = {"generator": generator, "discriminator": 0.5 * entropies}
        return {name: losses[name] for name in networks}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        z, _, z_hat = self._generate(images)
        difference = z - z_hat
        return (difference.square() if self.is_squared else difference.abs()).mean(dim=1)
