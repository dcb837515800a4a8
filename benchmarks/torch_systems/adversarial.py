"""Base of systems of several networks that have losses of their own."""

import abc
from collections.abc import Sequence

import torch
from torch import nn

from torch_systems.twin import BatchNorm, TrainedTwin, Tree, take_layers


class AdversarialTwin(TrainedTwin):
    """A system whose networks have losses of their own and alternate by a schedule."""

    @abc.abstractmethod
    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each network, by jaxad's name."""

    @abc.abstractmethod
    def draw_noise(self, count: int) -> tuple[torch.Tensor, ...]:
        """Returns the random numbers of an update with this many images."""

    @abc.abstractmethod
    def network_losses(
        self, images: torch.Tensor, networks: Sequence[str], noise: tuple[torch.Tensor, ...]
    ) -> dict[str, torch.Tensor]:
        """Returns the loss of each image, [B], for each of the networks that an update trains."""

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        """Returns the sum of all networks' losses, [B]."""
        noise = self.draw_noise(len(images))
        return sum(self.network_losses(images, list(self.networks()), noise).values())

    def load(self, variables: Tree) -> None:
        take_layers(self, variables["params"])
        for layer in self.modules():
            assert not isinstance(layer, BatchNorm), "twins of GANs have no batch norm"
