"""f-AnoGAN in PyTorch: `jaxad.models.f_anogan`."""

from collections.abc import Sequence

import torch
from torch import nn

from torch_systems.adversarial import AdversarialTwin
from torch_systems.blocks import Encoder, Generator
from torch_systems.twin import Config

_EPSILON = 1e-12


class FAnoGAN(AdversarialTwin):
    """A generator against a critic, then an encoder.

    An update that trains critic and generator generates and judges its images once; the critic's
    updates compute no gradient of the generator.
    """

    def __init__(self, config: Config):
        super().__init__()
        model = config["model"]
        self.latents, self.bounded_code = model["latents"], model["bounded_code"]
        self.gradient_penalty, self.kappa = model["gradient_penalty"], model["kappa"]
        self.coder = Encoder("encoder", config, self.latents, model["norm"])
        self.generator = Generator("generator", config)
        self.critic = Encoder("critic", config, 1, model["critic_norm"])

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each network, by jaxad's name."""
        parts = {"encoder": self.coder, "generator": self.generator, "critic": self.critic}
        return {name: list(part.parameters()) for name, part in parts.items()}

    def draw_noise(self, count: int) -> tuple[torch.Tensor, ...]:
        """Returns z [B, latents] and the shares e [B, 1, 1, 1] of the gradient penalty."""
        device = self.critic.dense.bias.device
        z = torch.randn(count, self.latents, device=device)
        return z, torch.rand(count, 1, 1, 1, device=device)

    def network_losses(
        self, images: torch.Tensor, networks: Sequence[str], noise: tuple[torch.Tensor, ...]
    ) -> dict[str, torch.Tensor]:
        losses = {}
        if "encoder" in networks:
            losses["encoder"] = self._distance(images)
        if "critic" in networks or "generator" in networks:
            z, mix = noise
            with torch.set_grad_enabled(torch.is_grad_enabled() and "generator" in networks):
                fake = self.generator(z)
            of_fake = self.critic(fake)[0][:, 0]
        if "generator" in networks:
            losses["generator"] = -of_fake
        if "critic" in networks:
            penalty = (self._slope(mix * images + (1 - mix) * fake.detach()) - 1) ** 2
            of_real = self.critic(images)[0][:, 0]
            losses["critic"] = of_fake - of_real + self.gradient_penalty * penalty
        return losses

    def _slope(self, images: torch.Tensor) -> torch.Tensor:
        """Returns |grad D| at each image."""
        gradient = torch.func.grad(lambda x: self.critic(x)[0].sum())(images)
        return (gradient.square().sum(dim=(1, 2, 3)) + _EPSILON).sqrt()

    def _distance(self, images: torch.Tensor) -> torch.Tensor:
        """Returns L_izif, which is A(x)."""
        code = self.coder(images)[0]
        x_hat = self.generator(torch.tanh(code) if self.bounded_code else code)
        with torch.no_grad():
            features = self.critic(images)[1]
        squared = (images - x_hat).square().mean(dim=(1, 2, 3))
        return squared + self.kappa * (features - self.critic(x_hat)[1]).square().mean(
            dim=(1, 2, 3)
        )

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return self._distance(images)
