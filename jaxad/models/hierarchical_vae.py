"""Hierarchical VAEs that split an image into high-level and low-level content (pchVAE).

Zimmerer, Petersen and Maier-Hein: "High- and Low-level image component decomposition using VAEs
for improved reconstruction and anomaly detection". Equations are numbered as there.

The caption of the paper's Figure 1 calls the low-level encoder f_1; Eqs. 3 to 9 use f_1 for the
high level (z1). This file follows the equations:

    features       = stem(x)                     H/4, shared by both encoders
    z1 ~ f1(x)     = high_encoder(features)      H/16
    u, x_high      = g1(z1): trunk(z1) at H/4 (shared with the low level), tail(u)
    z2 ~ f2(x, z1) = low_encoder(features, u)    H/4
    x_low          = g2(z1, z2) = low_decoder(z2, u)
    x_hat          = x_high + x_low
    x_zero         = g1(z_low), z_low ~ f1(x_low): pushed to zero (third term)

Eq. 2 has the low level of the high level in its third term, Eqs. 3 and 9 the high level of the low
level: the paper swaps them without a word. The latter is built here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad import ops
from jaxad.errors import UserError
from jaxad.nn import blocks
from jaxad.types import (
    Batch,
    ExampleKeys,
    Images,
    LossAux,
    PerExample,
    Scores,
    Variables,
)

FeatureMap = Float[Array, "batch rows columns features"]
Latent = Float[Array, "batch *latent"]


@runtime_checkable
class Branches(Protocol):
    """The four maps of Eqs. 3 to 9; anything with these methods can be decomposed with."""

    def encode_high(self, x: Array) -> tuple[Array, ops.DiagonalGaussian]:
        """f1: features that the low level shares, and the posterior of z1."""
        ...

    def decode_high(self, z1: Latent) -> tuple[Array, Array]:
        """g1: the trunk's features u, and x_high."""
        ...

    def encode_low(self, features: Array, u: Array) -> ops.DiagonalGaussian:
        """f2: the posterior of z2 given x (through its features) and z1 (through u)."""
        ...

    def decode_low(self, z2: Latent, u: Array) -> Array:
        """g2: x_low."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Levels:
    """The two levels of an image: images in its shape, posteriors per example."""

    x_high: Float[Array, "batch *image"]
    x_low: Float[Array, "batch *image"]
    posterior_high: ops.DiagonalGaussian
    posterior_low: ops.DiagonalGaussian

    @property
    def x_hat(self) -> Float[Array, "batch *image"]:
        """The reconstruction."""
        return self.x_high + self.x_low


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decomposition:
    """An image taken apart: its levels, and the low level passed through the high one."""

    levels: Levels
    x_zero: Float[Array, "batch *image"]


def split_levels(
    branches: Branches, x: Float[Array, "batch *image"], keys: ExampleKeys | None
) -> Levels:
    """The first two expectations of Eq. 8: both levels of an image; see `decompose`."""
    features, posterior_high = branches.encode_high(x)
    u, x_high = branches.decode_high(ops.reparameterise(posterior_high, ops.fold_in_all(keys, 0)))
    posterior_low = branches.encode_low(features, u)
    x_low = branches.decode_low(ops.reparameterise(posterior_low, ops.fold_in_all(keys, 1)), u)
    return Levels(x_high, x_low, posterior_high, posterior_low)


def through_high_level(
    branches: Branches, x_low: Float[Array, "batch *image"], keys: ExampleKeys | None
) -> Float[Array, "batch *image"]:
    """x_zero = g1(z_low), z_low ~ f1(x_low): the third expectation of Eq. 8; see `decompose`."""
    _, posterior = branches.encode_high(x_low)
    _, x_zero = branches.decode_high(ops.reparameterise(posterior, ops.fold_in_all(keys, 2)))
    return x_zero


def decompose(
    branches: Branches, x: Float[Array, "batch *image"], keys: ExampleKeys | None
) -> Decomposition:
    """Runs an image through both levels and the low level through the high one (Eq. 8).

    Args:
        branches: the encoders and decoders.
        x: images, float [B, ...].
        keys: one key per example to sample the latents with; None takes posterior means.
    """
    levels = split_levels(branches, x, keys)
    return Decomposition(levels, through_high_level(branches, levels.x_low, keys))


#: The terms of Eq. 9 in its order: lambda_1 ... lambda_5 weigh them.
TERMS = ("nll_high", "nll", "nll_zero", "kl_high", "kl_low")


def loss_terms(
    parts: Decomposition, x: Float[Array, "batch *image"], variance: float
) -> dict[str, PerExample]:
    """The five terms of Eq. 9 before their weights, by the names in `TERMS`; nats, each [B].

    The norms are Gaussian negative log-likelihoods with the constant variance c (Eq. 8), the
    third that of a zero image.
    """
    nll, levels = ops.gaussian_negative_log_likelihood, parts.levels
    values = (
        nll(x, levels.x_high, variance),
        nll(x, levels.x_hat, variance),
        nll(jnp.zeros_like(x), parts.x_zero, variance),
        ops.standard_normal_kl(levels.posterior_high),
        ops.standard_normal_kl(levels.posterior_low),
    )
    return dict(zip(TERMS, values, strict=True))


def weighted_sum(terms: Mapping[str, PerExample], weights: tuple[float, ...]) -> PerExample:
    """Eq. 9: the sum over terms of lambda_i times term i; [B]."""
    return sum(
        (weight * terms[name] for name, weight in zip(TERMS, weights, strict=True)),
        start=jnp.zeros(()),
    )


def _full_precision(x: Array) -> Array:
    """At least float32: what likelihoods and divergences are computed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class _Posterior(nn.Module):
    """Mean and log variance by a 1x1 convolution, at least in float32."""

    latent_channels: int

    @nn.compact
    def __call__(self, x: FeatureMap) -> ops.DiagonalGaussian:
        statistics = nn.Dense(2 * self.latent_channels)(_full_precision(x))
        mean, log_variance = jnp.split(statistics, 2, axis=-1)
        return ops.DiagonalGaussian(mean, log_variance)


class Modules(nn.Module):
    """The modules of Figure 1; implements `Branches`."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    latent_channels_high: int
    latent_channels_low: int
    image_channels: int
    norm: str
    train: bool
    axis_name: str | None
    dtype: DTypeLike

    def setup(self) -> None:
        half, quarter, eighth, sixteenth = self.widths
        common: dict[str, Any] = {
            "norm": self.norm,
            "activation": nn.leaky_relu,
            "train": self.train,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
        }

        depth_half, depth_quarter, depth_eighth, depth_sixteenth = self.depths

        def down(features: int, depth: int) -> blocks.Down:
            return blocks.Down(features=features, depth=depth, **common)

        def up(features: int, depth: int) -> blocks.Up:
            return blocks.Up(features=features, depth=depth, **common)

        self.stem = nn.Sequential(
            [down(half, depth_half), nn.leaky_relu, down(quarter, depth_quarter), nn.leaky_relu]
        )
        self.high_encoder = nn.Sequential(
            [
                down(eighth, depth_eighth),
                nn.leaky_relu,
                down(sixteenth, depth_sixteenth),
                nn.leaky_relu,
            ]
        )
        self.high_posterior = _Posterior(self.latent_channels_high)
        self.trunk = nn.Sequential(
            [
                nn.Dense(sixteenth, dtype=self.dtype),
                up(eighth, depth_sixteenth),
                up(quarter, depth_eighth),
            ]
        )
        self.tail = nn.Sequential([up(half, depth_quarter), up(self.image_channels, depth_half)])
        self.low_encoder = nn.Sequential(
            [nn.Conv(quarter, (3, 3), dtype=self.dtype), nn.leaky_relu]
        )
        self.low_posterior = _Posterior(self.latent_channels_low)
        self.low_decoder = nn.Sequential(
            [
                nn.Conv(quarter, (3, 3), dtype=self.dtype),
                up(half, depth_quarter),
                up(self.image_channels, depth_half),
            ]
        )

    def encode_high(self, x: Images) -> tuple[FeatureMap, ops.DiagonalGaussian]:
        features = self.stem(x.astype(self.dtype))
        return features, self.high_posterior(self.high_encoder(features))

    def decode_high(self, z1: Latent) -> tuple[FeatureMap, Images]:
        u = self.trunk(z1.astype(self.dtype))
        return u, _full_precision(self.tail(u))

    def encode_low(self, features: FeatureMap, u: FeatureMap) -> ops.DiagonalGaussian:
        return self.low_posterior(self.low_encoder(jnp.concatenate([features, u], axis=-1)))

    def decode_low(self, z2: Latent, u: FeatureMap) -> Images:
        joined = jnp.concatenate([z2.astype(self.dtype), u], axis=-1)
        return _full_precision(self.low_decoder(joined))

    def __call__(self, x: Images, keys: ExampleKeys | None) -> Decomposition:
        return decompose(self, x, keys)

    def split_levels(self, x: Images, keys: ExampleKeys | None) -> Levels:
        return split_levels(self, x, keys)

    def through_high_level(self, x_low: Images, keys: ExampleKeys | None) -> Images:
        return through_high_level(self, x_low, keys)


@dataclasses.dataclass(frozen=True)
class HierarchicalVAE:
    """pchVAE as a `jaxad.types.Model`.

    Attributes:
        image_shape: (H, W, C); H and W are multiples of 16.
        widths: channels at H/2, H/4, H/8 and H/16.
        depths: residual 3x3 convolutions per block at H/2, H/4, H/8 and H/16.
        latent_channels_high: channels of z1, which lies at H/16.
        latent_channels_low: channels of z2, which lies at H/4.
        variance: the constant variance c of the likelihoods, in squared units of the image.
        weights: lambda 1 to 5 of Eq. 9.
        norm: `none`, `group` or `batch`.
        dtype: of the convolutions; parameters, posteriors and likelihoods stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    latent_channels_high: int
    latent_channels_low: int
    variance: float
    weights: tuple[float, float, float, float, float]
    norm: str = "none"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @property
    def networks(self) -> Mapping[str, str]:
        """One loss trains every parameter."""
        return {"model": ".*"}

    def __post_init__(self) -> None:
        height, width, _ = self.image_shape
        if height % 16 or width % 16:
            raise UserError(
                f"config.data.image_size: {height} cannot be halved four times; "
                "choose a multiple of 16."
            )
        if self.norm not in blocks.NORMS:
            raise UserError(
                f"config.model.norm: unknown norm '{self.norm}'; known: {', '.join(blocks.NORMS)}."
            )
        if not 0 < self.variance < float("inf"):
            raise UserError(f"config.model.variance: {self.variance} is not positive.")
        sizes = (*self.widths, self.latent_channels_high, self.latent_channels_low)
        if min(sizes) < 1 or min(self.depths) < 0:
            raise UserError(
                f"config.model: widths {self.widths} and latent channels must be at least 1, "
                f"depths {self.depths} at least 0."
            )

    def modules(self, *, train: bool) -> Modules:
        """The Linen modules in training or in evaluation mode."""
        return Modules(
            widths=self.widths,
            depths=self.depths,
            latent_channels_high=self.latent_channels_high,
            latent_channels_low=self.latent_channels_low,
            image_channels=self.image_shape[-1],
            norm=self.norm,
            train=train,
            axis_name=self.axis_name if train else None,
            dtype=self.dtype,
        )

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables."""
        return self.modules(train=False).init(key, jnp.zeros((1, *self.image_shape)), None)

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Eq. 9 with Monte Carlo sampling of size 1; see `jaxad.types.Model`."""
        x = batch["image"]
        modules = self.modules(train=train)
        collections = [name for name in variables if name != "params"] if train else []
        levels: Any
        levels, mutable = modules.apply(
            variables, x, keys, method="split_levels", mutable=collections
        )
        # Batch norm's running statistics are those of images: the pass of the low level through
        # the high one normalises by its own batch and leaves them alone.
        x_zero: Any
        x_zero, _ = modules.apply(
            variables, levels.x_low, keys, method="through_high_level", mutable=collections
        )
        terms = loss_terms(Decomposition(levels, x_zero), x, self.variance)
        return {"model": weighted_sum(terms, self.weights)}, LossAux(terms, mutable)

    def score(self, variables: Variables, images: Images) -> Scores:
        """The approximate negative ELBO: nll + kl_high + kl_low, latents at their means.

        Terms 1 and 3 are components only. The pixel map is each pixel's share of the likelihood
        term without its constant, (x - x_hat)^2 / 2c averaged over channels.
        """
        parts: Any = self.modules(train=False).apply(variables, images, None)
        terms = loss_terms(parts, images, self.variance)
        levels = parts.levels
        residual = images - levels.x_hat
        squared_error = jnp.mean(residual**2, axis=-1)
        return Scores(
            image=terms["nll"] + terms["kl_high"] + terms["kl_low"],
            pixel=squared_error / (2 * self.variance),
            components={**terms, "mse": jnp.mean(squared_error, axis=(1, 2))},
            reconstructions={
                "high": levels.x_high,
                "low": levels.x_low,
                "zero": parts.x_zero,
                "reconstruction": levels.x_hat,
            },
        )
