"""pchVAE, chVAE, High VAE and Low VAE in PyTorch.

`jaxad.models.hierarchical_vae` and `jaxad.models.decomposition` have the equations.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from torch_systems.blocks import Residual
from torch_systems.twin import Config, Conv, TrainedTwin, Tree, Up, copy, squared_error, take_layers

Gaussian = tuple[torch.Tensor, torch.Tensor]
#: Returns latents of a level from its posterior; the levels are `z1` and `z2`.
Draw = Callable[[str, Gaussian], torch.Tensor]


def _down(path: str, inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(
        Conv(f"{path}/Dense_0", inputs, outputs, 2, stride=2),
        Residual(f"{path}/Residual_0", outputs, depth),
        nn.LeakyReLU(inplace=True),
    )


def _up(path: str, inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(f"{path}/Residual_0", inputs, depth),
        nn.LeakyReLU(inplace=depth > 0),  # at depth 0 the input may have other uses
        Up(f"{path}/Dense_0", inputs, outputs),
    )


def _halves(statistics: torch.Tensor) -> Gaussian:
    """Splits the output of an encoder into mean and log variance."""
    mean, log_variance = statistics.chunk(2, dim=1)
    return mean, log_variance


def _mean(level: str, posterior: Gaussian) -> torch.Tensor:
    return posterior[0]


def _sample(level: str, posterior: Gaussian) -> torch.Tensor:
    mean, log_variance = posterior
    return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)


def _kl(posterior: Gaussian) -> torch.Tensor:
    mean, log_variance = posterior
    return 0.5 * (mean**2 + torch.expm1(log_variance) - log_variance).sum(dim=(1, 2, 3))


def _repeat(x: torch.Tensor, count: int) -> torch.Tensor:
    """Repeats a batch `count` times, [count * B, C, H, W]; copies nothing if that is once."""
    places = x.permute(0, 2, 3, 1)
    places = places.expand(count, *places.shape).reshape(-1, *places.shape[1:])
    return places.permute(0, 3, 1, 2)


class HierarchicalVAE(TrainedTwin):
    """Base of the four systems, with the parts that the paper's Figure 1 names.

    Without norms, with z2 conditioned on z1 and the ELBO as score: the defaults of the configs.
    Scores at several draws compute what the draws share once, and the draws as one batch.

    Attributes:
        has_z1: whether the system has the high level.
        has_x_high: whether the high level has an image of its own.
        has_z2: whether the system has the low level.
    """

    has_z1 = has_x_high = has_z2 = True

    def __init__(self, config: Config):
        super().__init__()
        model, channels = config["model"], config["data"]["channels"]
        assert (model["norm"], model["image_score"]) == ("none", "elbo")
        assert model.get("condition_z2", True)
        self.variance, self.weights = model["variance"], model["weights"]
        self.samples, side = model["score_samples"], config["data"]["image_size"]
        (half, quarter), depths = model["widths"][:2], model["depths"]
        self.stem = nn.Sequential(
            _down("stem/layers_0", channels, half, depths[0]),
            _down("stem/layers_2", half, quarter, depths[1]),
        )

        def decoder(name: str, first: int) -> list[nn.Module]:
            """Returns the blocks from H/4 to the image; `first` is the number of jaxad's layer."""
            return [
                _up(f"{name}/layers_{first}", quarter, half, depths[1]),
                _up(f"{name}/layers_{first + 1}", half, channels, depths[0]),
            ]

        if self.has_z1:
            self._add_high_level(model, side)
        if self.has_x_high:
            self.tail = nn.Sequential(*decoder("tail", 0))
        if self.has_z2:
            low = model["latent_channels"][-1]
            joined = quarter if self.has_z1 else 0
            self._add_noise("z2", side // 4, low)
            self.low_encoder = nn.Sequential(
                Conv("low_encoder/layers_0", quarter + joined, quarter, 3),
                nn.LeakyReLU(inplace=True),
                Conv("low_posterior/Dense_0", quarter, 2 * low, 1),
            )
            first = Conv("low_decoder/layers_0", low + joined, quarter, 3)
            self.low_decoder = nn.Sequential(first, *decoder("low_decoder", 1))

    def _add_high_level(self, model: Config, side: int) -> None:
        _, quarter, eighth, sixteenth = model["widths"]
        _, _, depth_eighth, depth_sixteenth = model["depths"]
        high = model["latent_channels"][0]
        self._add_noise("z1", side // 16, high)
        self.high_encoder = nn.Sequential(
            _down("high_encoder/layers_0", quarter, eighth, depth_eighth),
            _down("high_encoder/layers_2", eighth, sixteenth, depth_sixteenth),
            Conv("high_posterior/Dense_0", sixteenth, 2 * high, 1),
        )
        self.trunk = nn.Sequential(
            Conv("trunk/layers_0", high, sixteenth, 1),
            _up("trunk/layers_1", sixteenth, eighth, depth_sixteenth),
            _up("trunk/layers_2", eighth, quarter, depth_eighth),
        )

    def _add_noise(self, level: str, side: int, channels: int) -> None:
        """Adds the noise of the scores' draws, the same for every image."""
        noise = torch.randn(self.samples, side, side, channels)
        self.register_buffer(f"noise_{level}", noise)

    def load(self, variables: Tree) -> None:
        """Copies jaxad's weights and, if `variables` has it, the noise of its scores."""
        take_layers(self, variables["params"])
        for level, noise in variables.get("noise", {}).items():
            copy(getattr(self, f"noise_{level}"), noise)

    def _levels(
        self, x: torch.Tensor, draw: Draw
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, list[Gaussian]]:
        """Returns x_high, x_low and the posteriors of the levels.

        Parts that the system lacks are None. A `draw` may return several draws of each image.
        """
        features, u, posteriors = self.stem(x), None, []
        x_high = x_low = None
        if self.has_z1:
            posteriors.append(_halves(self.high_encoder(features)))
            u = self.trunk(draw("z1", posteriors[-1]))
            x_high = self.tail(u) if self.has_x_high else None
        if self.has_z2:
            if u is not None:
                features = torch.cat([_repeat(features, len(u) // len(x)), u], dim=1)
            posteriors.append(_halves(self.low_encoder(features)))
            z2 = draw("z2", posteriors[-1])
            x_low = self.low_decoder(z2 if u is None else torch.cat([z2, u], dim=1))
        return x_high, x_low, posteriors

    def _nll(self, squared: torch.Tensor, numbers: int) -> torch.Tensor:
        """Returns the Gaussian negative log-likelihood of squared errors over `numbers` pixels."""
        constant = 0.5 * numbers * math.log(2 * math.pi * self.variance)
        return squared * (0.5 / self.variance) + constant

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        draw = _sample if sample else _mean
        x_high, x_low, posteriors = self._levels(images, draw)
        numbers = images[0].numel()
        if x_high is not None and x_low is not None:
            z_low = draw("z1", _halves(self.high_encoder(self.stem(x_low))))
            x_zero = self.tail(self.trunk(z_low))
            x_hat = x_high + x_low
            zero = (x_zero**2).sum(dim=(1, 2, 3))
            squared = [squared_error(x_high, images), squared_error(x_hat, images), zero]
        else:
            squared = [squared_error(x_low if x_high is None else x_high, images)]
        terms = [self._nll(term, numbers) for term in squared] + list(map(_kl, posteriors))
        return sum(weight * term for weight, term in zip(self.weights, terms, strict=True))

    def _draw_fixed(self, batch: int, level: str, posterior: Gaussian) -> torch.Tensor:
        """Returns the scores' draws, [samples * B, ...], from one posterior or one of each draw."""
        if not self.samples:
            return _mean(level, posterior)
        noise = getattr(self, f"noise_{level}")[:, None]
        mean, log_variance = (
            part.permute(0, 2, 3, 1).unflatten(0, (-1, batch)) for part in posterior
        )
        drawn = mean + torch.exp(0.5 * log_variance) * noise
        return drawn.flatten(0, 1).permute(0, 3, 1, 2)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        draw = functools.partial(self._draw_fixed, len(images))
        x_high, x_low, posteriors = self._levels(images, draw)
        x_hat = x_high if x_low is None else x_low if x_high is None else x_high + x_low
        squared = squared_error(x_hat, _repeat(images, len(x_hat) // len(images)))
        terms = [self._nll(squared, images[0].numel()), *map(_kl, posteriors)]
        return sum(term.unflatten(0, (-1, len(images))).mean(dim=0) for term in terms)


class PchVAE(HierarchicalVAE):
    """pchVAE: all parts."""


class ConditionalVAE(HierarchicalVAE):
    """chVAE: pchVAE without x_high and the third term."""

    has_x_high = False


class HighVAE(HierarchicalVAE):
    """High VAE: the high level alone."""

    has_z2 = False


class LowVAE(HierarchicalVAE):
    """Low VAE: the low level alone."""

    has_z1 = has_x_high = False
