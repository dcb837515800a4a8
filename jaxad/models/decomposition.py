"""Equations of the pchVAE paper: the decomposition of an image into two levels, and its loss.

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

The third term of Eq. 2 passes the high level through the low one, that of Eqs. 3 and 9 the low
level through the high one; the paper does not comment on it. The latter is implemented here.

The systems that the paper compares have different `Parts`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxad.nn import ops
from jaxad.types import ExampleKeys, PerExample

Pixels = Float[Array, "batch *image"]
Latent = Float[Array, "batch *latent"]


@dataclasses.dataclass(frozen=True)
class Parts:
    """Parts of Figure 1 that a system has.

    Attributes:
        z1: the high level's latents, its encoder and the trunk.
        x_high: the high level's own image, decoded from the trunk by the tail (dark blue).
        z2: the low level's latents, their encoder and decoder (red).
    """

    z1: bool = True
    x_high: bool = True
    z2: bool = True

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of Eq. 9 that these parts have, in its order."""
        both_images = self.x_high and self.z2
        present = {
            "nll_high": both_images,  # without a low level, x_high is x_hat
            "nll": True,
            "nll_zero": both_images,
            "kl_high": self.z1,
            "kl_low": self.z2,
        }
        return tuple(name for name in TERMS if present[name])


#: The terms of Eq. 9 in its order: lambda_1 ... lambda_5 weigh them.
TERMS = ("nll_high", "nll", "nll_zero", "kl_high", "kl_low")

#: Image score -> the terms of Eq. 9 that it is the sum of.
IMAGE_SCORES = {
    "elbo": ("nll", "kl_high", "kl_low"),  # the negative ELBO, the paper's anomaly score
    "reconstruction": ("nll",),
    "high_level": ("nll_high", "kl_high"),  # the negative ELBO of the high level alone
    "low_level": ("kl_low",),  # the information that the low level adds
}


@runtime_checkable
class Branches(Protocol):
    """Encoders and decoders of Eqs. 3 to 9; those that `parts` lacks are never called."""

    @property
    def parts(self) -> Parts: ...

    def encode(self, x: Pixels) -> Array:
        """Returns the features that both levels share."""
        ...

    def encode_high(self, features: Array) -> ops.DiagonalGaussian:
        """Returns the posterior of z1 (f1)."""
        ...

    def decode_high(self, z1: Latent) -> tuple[Array, Array | None]:
        """Returns the trunk's features u, and x_high if the system has it (g1)."""
        ...

    def encode_low(self, features: Array, u: Array | None) -> ops.DiagonalGaussian:
        """Returns the posterior of z2 given x (by its features) and z1 (by u) (f2)."""
        ...

    def decode_low(self, z2: Latent, u: Array | None) -> Array:
        """Returns x_low (g2)."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Levels:
    """Levels of an image and their posteriors; None for parts that a system lacks."""

    x_high: Pixels | None
    x_low: Pixels | None
    posterior_high: ops.DiagonalGaussian | None
    posterior_low: ops.DiagonalGaussian | None

    @property
    def x_hat(self) -> Pixels:
        """The reconstruction: the sum of the levels."""
        parts = (self.x_high, self.x_low)
        return sum((part for part in parts if part is not None), start=jnp.zeros(()))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decomposition:
    """Levels of an image, and its low level passed through the high one."""

    levels: Levels
    x_zero: Pixels | None


def split_levels(branches: Branches, x: Pixels, keys: ExampleKeys | None) -> Levels:
    """Splits an image into its levels: the first two expectations of Eq. 8.

    Arguments are those of `decompose`.
    """
    features = branches.encode(x)
    u = x_high = x_low = posterior_high = posterior_low = None
    if branches.parts.z1:
        posterior_high = branches.encode_high(features)
        z1 = ops.reparameterise(posterior_high, ops.fold_in_all(keys, 0))
        u, x_high = branches.decode_high(z1)
    if branches.parts.z2:
        posterior_low = branches.encode_low(features, u)
        z2 = ops.reparameterise(posterior_low, ops.fold_in_all(keys, 1))
        x_low = branches.decode_low(z2, u)
    return Levels(x_high, x_low, posterior_high, posterior_low)


def through_high_level(
    branches: Branches, levels: Levels, keys: ExampleKeys | None
) -> Pixels | None:
    """Returns x_zero = g1(z_low), z_low ~ f1(x_low): the third expectation of Eq. 8."""
    if levels.x_high is None or levels.x_low is None:
        return None
    posterior = branches.encode_high(branches.encode(levels.x_low))
    _, x_zero = branches.decode_high(ops.reparameterise(posterior, ops.fold_in_all(keys, 2)))
    return x_zero


def decompose(branches: Branches, x: Pixels, keys: ExampleKeys | None) -> Decomposition:
    """Splits an image into its levels and passes the low level through the high one (Eq. 8).

    Args:
        branches: encoders and decoders.
        x: images, float [B, ...].
        keys: one key per example to draw the latents with; None takes posterior means.
    """
    levels = split_levels(branches, x, keys)
    return Decomposition(levels, through_high_level(branches, levels, keys))


def loss_terms(parts: Decomposition, x: Pixels, variance: float) -> dict[str, PerExample]:
    """Returns the unweighted terms of Eq. 9 by name, each [B], in nats, in order of `Parts.terms`.

    The three norms are Gaussian negative log-likelihoods with the constant variance c (Eq. 8); the
    third one compares x_zero with a zero image.
    """
    nll, levels = ops.gaussian_negative_log_likelihood, parts.levels
    terms: dict[str, PerExample] = {}
    if levels.x_high is not None and levels.x_low is not None:
        terms["nll_high"] = nll(x, levels.x_high, variance)
    terms["nll"] = nll(x, levels.x_hat, variance)
    if parts.x_zero is not None:
        terms["nll_zero"] = nll(jnp.zeros_like(x), parts.x_zero, variance)
    if levels.posterior_high is not None:
        terms["kl_high"] = ops.standard_normal_kl(levels.posterior_high)
    if levels.posterior_low is not None:
        terms["kl_low"] = ops.standard_normal_kl(levels.posterior_low)
    return terms


def weighted_sum(terms: Mapping[str, PerExample], weights: Mapping[str, float]) -> PerExample:
    """Returns the sum of the terms in `weights`, weighted; [B]. With all lambda_i, it is Eq. 9."""
    return sum((weight * terms[name] for name, weight in weights.items()), start=jnp.zeros(()))
