"""VQ-VAE-2 in PyTorch: `jaxad.models.vq_vae2` and `jaxad.nn.quantiser`."""

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.twin import Config, Conv, TrainedTwin, Tree, Up, take_layers

_DEAD_SHARE = 0.03


class Stack(nn.Module):
    """A 3x3 convolution and residual blocks of relu, 3x3, relu, 1x1; then relu."""

    def __init__(self, number: int, inputs: int, width: int, depth: int, hidden: int):
        super().__init__()
        self.first = Conv(f"Conv_{number}", inputs, width, 3)
        path = f"Bottleneck_{number}"
        self.wide = nn.ModuleList(Conv(f"{path}/Conv_{n}", width, hidden, 3) for n in range(depth))
        self.narrow = nn.ModuleList(
            Conv(f"{path}/Dense_{n}", hidden, width, 1) for n in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            x = x + narrow(F.relu(wide(F.relu(x))))
        return F.relu(x)


class Quantiser(nn.Module):
    """Codes by moving averages, of which those that are hardly used are drawn anew."""

    def __init__(self, num_codes: int, dimension: int, decay: float):
        super().__init__()
        self.decay = decay
        self.register_buffer("count", torch.ones(num_codes))
        self.register_buffer("visits", torch.ones(num_codes))
        self.register_buffer("total", torch.randn(num_codes, dimension))
        # A tensor: torch.compile compiles again for each value of a number.
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes [B, D, h, w] with the straight-through gradient, and commitments [B]."""
        places = vectors.permute(0, 2, 3, 1)
        flat = places.detach().reshape(-1, places.shape[-1])
        codebook = self.total / self.count[:, None]
        distance = (codebook**2).sum(dim=1) - 2 * flat @ codebook.T
        codes = distance.argmin(dim=1)
        chosen = codebook[codes].reshape(places.shape)
        commitment = ((places - chosen) ** 2).mean(dim=(1, 2, 3))
        quantised = places + (chosen - places).detach()
        if self.training:
            with torch.no_grad():
                self._update(flat, codes)
        return quantised.permute(0, 3, 1, 2), commitment

    def _update(self, flat: torch.Tensor, codes: torch.Tensor) -> None:
        seen = torch.bincount(codes, minlength=len(self.count)).to(flat.dtype)
        sums = torch.zeros_like(self.total).index_add_(0, codes, flat)
        for average, new in ((self.count, seen), (self.visits, seen), (self.total, sums)):
            average.lerp_(new, 1 - self.decay)
        mean = self.count.mean()
        dead = self.count < _DEAD_SHARE * mean
        dead = dead | (self.updates == 0)
        drawn = flat[torch.randint(len(flat), (len(self.count),))]
        self.count.copy_(torch.where(dead, mean, self.count))
        self.total.copy_(torch.where(dead[:, None], mean * drawn, self.total))
        self.updates += 1

    def take(self, state: Tree) -> None:
        for name in ("count", "visits", "total"):
            getattr(self, name).copy_(torch.from_numpy(state[name].copy()))
        self.updates.fill_(int(state["updates"]))


class VQVAE2(TrainedTwin):
    """Two levels of codes."""

    def __init__(self, config: Config):
        super().__init__()
        model, colours = config["model"], config["data"]["channels"]
        channels, codes = model["channels"], model["code_dimension"]
        self.beta = model["commitment"]

        def down(number: int, inputs: int, outputs: int) -> Conv:
            return Conv(f"Down_{number}/Dense_0", inputs, outputs, 2, stride=2)

        def stack(number: int, inputs: int) -> Stack:
            depth, hidden = model["residual_blocks"], model["residual_channels"]
            return Stack(number, inputs, channels, depth, hidden)

        def quantiser() -> Quantiser:
            return Quantiser(model["num_codes"], codes, model["decay"])

        half = channels // 2
        self.bottom_encoder = nn.Sequential(
            down(0, colours, half), nn.ReLU(), down(1, half, channels), nn.ReLU(),
            stack(0, channels),
        )  # fmt: skip
        self.top_encoder = nn.Sequential(down(2, channels, half), nn.ReLU(), stack(1, half))
        self.to_top = Conv("Dense_0", channels, codes, 1)
        self.top, self.bottom = quantiser(), quantiser()
        self.top_decoder = nn.Sequential(stack(2, codes), Up("Dense_1", channels, codes))
        self.to_bottom = Conv("Dense_2", codes + channels, codes, 1)
        self.top_up = Up("Dense_3", codes, codes)
        self.decoder = nn.Sequential(
            stack(3, 2 * codes), Up("Dense_4", channels, half), nn.ReLU(),
            Up("Dense_5", half, colours),
        )  # fmt: skip

    def load(self, variables: Tree) -> None:
        take_layers(self, variables["params"])
        self.top.take(variables["codebook"]["top"])
        self.bottom.take(variables["codebook"]["bottom"])

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        bottom = self.bottom_encoder(images)
        top, top_commitment = self.top(self.to_top(self.top_encoder(bottom)))
        joined = torch.cat([self.top_decoder(top), bottom], dim=1)
        low, bottom_commitment = self.bottom(self.to_bottom(joined))
        x_hat = self.decoder(torch.cat([self.top_up(top), low], dim=1))
        squared = ((images - x_hat) ** 2).mean(dim=(1, 2, 3))
        return squared + self.beta * (top_commitment + bottom_commitment)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return self.losses(images)
