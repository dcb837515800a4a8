"""The hierarchical VAEs of the pchVAE paper: pchVAE, chVAE, High VAE and Low VAE.

`decomposition.py` has the equations, this file the networks of the paper's Figure 1. A system is a
choice of parts: chVAE is pchVAE without the tail (one reconstruction, no x_high and no third term),
High VAE has no low level, Low VAE no high level.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.models.decomposition import (
    IMAGE_SCORES,
    Decomposition,
    Latent,
    Parts,
    decompose,
    loss_terms,
    split_levels,
    through_high_level,
    weighted_sum,
)
from jaxad.nn import blocks, networks, ops
from jaxad.nn.fields import Interval, OneOf, check_halvings
from jaxad.nn.system_fields import SystemFields
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

FeatureMap = Float[Array, "batch rows columns features"]


def _concatenate(
    *maps: Float[Array, "batch rows columns _"] | None,
) -> Float[Array, "batch rows columns joined"]:
    """Concatenates the maps that are not None along their channels."""
    present = [x for x in maps if x is not None]
    return jnp.concatenate(present, axis=-1) if len(present) > 1 else present[0]


class _Posterior(nn.Module):
    """Computes mean and log variance by a 1x1 convolution in at least float32."""

    latent_channels: int

    @nn.compact
    def __call__(self, x: FeatureMap) -> ops.DiagonalGaussian:
        statistics = blocks.dense(2 * self.latent_channels)(ops.full_precision(x))
        mean, log_variance = jnp.split(statistics, 2, axis=-1)
        return ops.DiagonalGaussian(mean, log_variance)


class Modules(nn.Module):
    """Networks of Figure 1 that the system has; implements `decomposition.Branches`."""

    system: "HierarchicalVAE"
    train: bool

    @property
    def parts(self) -> Parts:
        return self.system.parts

    def setup(self) -> None:
        system, dtype = self.system, self.system.dtype
        common: dict[str, Any] = {
            "norm": system.norm, "activation": nn.leaky_relu, "train": self.train,
            "axis_name": system.axis_name if self.train else None, "dtype": dtype,
        }  # fmt: skip

        def down(features: int, depth: int) -> blocks.Down:
            return blocks.Down(features=features, depth=depth, **common)

        def up(features: int, depth: int) -> blocks.Up:
            return blocks.Up(features=features, depth=depth, **common)

        half, quarter = system.widths[:2]
        depth_half, depth_quarter = system.depths[:2]
        image_channels = system.image_shape[-1]
        self.stem = nn.Sequential(
            [down(half, depth_half), nn.leaky_relu, down(quarter, depth_quarter), nn.leaky_relu]
        )
        if self.parts.z1:
            eighth, sixteenth = system.widths[2:]
            depth_eighth, depth_sixteenth = system.depths[2:]
            finer, coarser = down(eighth, depth_eighth), down(sixteenth, depth_sixteenth)
            self.high_encoder = nn.Sequential([finer, nn.leaky_relu, coarser, nn.leaky_relu])
            self.high_posterior = _Posterior(system.latent_channels[0])
            upsampling = [up(eighth, depth_sixteenth), up(quarter, depth_eighth)]
            self.trunk = nn.Sequential([blocks.dense(sixteenth, dtype), *upsampling])
        if self.parts.x_high:
            self.tail = nn.Sequential([up(half, depth_quarter), up(image_channels, depth_half)])
        if self.parts.z2:
            to_codes, from_codes = (nn.Conv(quarter, (3, 3), dtype=dtype) for _ in range(2))
            self.low_encoder = nn.Sequential([to_codes, nn.leaky_relu])
            self.low_posterior = _Posterior(system.latent_channels[-1])
            upsampling = [up(half, depth_quarter), up(image_channels, depth_half)]
            self.low_decoder = nn.Sequential([from_codes, *upsampling])

    def encode(self, x: Images) -> FeatureMap:
        return self.stem(x.astype(self.system.dtype))

    def encode_high(self, features: FeatureMap) -> ops.DiagonalGaussian:
        return self.high_posterior(self.high_encoder(features))

    def decode_high(self, z1: Latent) -> tuple[FeatureMap, Images | None]:
        u = self.trunk(z1.astype(self.system.dtype))
        return u, ops.full_precision(self.tail(u)) if self.parts.x_high else None

    def encode_low(self, features: FeatureMap, u: FeatureMap | None) -> ops.DiagonalGaussian:
        joined = _concatenate(features, u if self.system.condition_z2 else None)
        return self.low_posterior(self.low_encoder(joined))

    def decode_low(self, z2: Latent, u: FeatureMap | None) -> Images:
        return ops.full_precision(self.low_decoder(_concatenate(z2.astype(self.system.dtype), u)))

    def __call__(self, x: Images, keys: ExampleKeys | None) -> Decomposition:
        return decompose(self, x, keys)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchicalVAE(SystemFields):
    """pchVAE as a `jaxad.types.TrainedModel`; its subclasses have fewer parts.

    Height and width of images are multiples of 16 (of 4 without a high level).

    Attributes:
        widths: channels at H/2, H/4, H/8 and H/16 (the first two without a high level).
        depths: residual 3x3 convolutions per block at the same resolutions.
        latent_channels: channels of z1, at H/16, and of z2, at H/4, for the levels in `parts`.
        variance: the constant variance c of the likelihoods, in squared units of the image.
        weights: lambda of each of `parts.terms`, in the order of Eq. 9.
        condition_z2: whether z2's posterior sees z1 (Eq. 8: f2(x, z1)) or the image alone.
        image_score: terms whose sum is the image score: `elbo` (nll + kl_high + kl_low, those that
            the system has; the paper's), `reconstruction` (nll), `high_level` (nll_high + kl_high)
            or `low_level` (kl_low).
        score_samples: draws of the latents that a score averages over; 0 takes the latents at
            their posterior means.
        norm: kind of normalisation.
    """

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS
    parts: ClassVar[Parts] = Parts()

    widths: Annotated[tuple[int, ...], Interval("[1, inf)")]
    depths: Annotated[tuple[int, ...], Interval("[0, inf)")]
    latent_channels: Annotated[tuple[int, ...], Interval("[1, inf)")]
    variance: Annotated[float, Interval("(0, inf)")]
    weights: tuple[float, ...]
    condition_z2: bool = True
    image_score: Annotated[str, OneOf(tuple(IMAGE_SCORES))] = "elbo"
    score_samples: Annotated[int, Interval("[0, inf)")] = 0
    norm: Annotated[str, OneOf(blocks.NORMS)] = "none"

    @property
    def score_weights(self) -> Mapping[str, float]:
        """The terms of `image_score` that the system has, each with weight 1."""
        names = IMAGE_SCORES[self.image_score]
        return {name: 1.0 for name in names if name in self.parts.terms}

    @property
    def _halvings(self) -> list[int]:
        """How many times the image size is halved to get to z1 and z2, for those in `parts`."""
        return [4] * self.parts.z1 + [2] * self.parts.z2

    @property
    def num_latents(self) -> int:
        """The number of latent variables of an image, over all levels."""
        height, width, _ = self.image_shape
        return sum(
            channels * (height >> halvings) * (width >> halvings)
            for channels, halvings in zip(self.latent_channels, self._halvings, strict=True)
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = max(self._halvings)
        check_halvings(self.image_shape, levels)
        lengths = {
            "widths": levels,
            "depths": levels,
            "latent_channels": len(self._halvings),
            "weights": len(self.parts.terms),
        }
        for name, length in lengths.items():
            if len(getattr(self, name)) != length:
                raise UserError(
                    f"config.model.{name}: {getattr(self, name)}; give {length} numbers."
                )
        missing = set(IMAGE_SCORES[self.image_score]) - set(self.parts.terms)
        if missing and self.image_score != "elbo":
            raise UserError(
                f"config.model.image_score: '{self.image_score}' needs {min(missing)}, which this "
                "system lacks; use 'elbo' or 'reconstruction'."
            )

    def modules(self, *, train: bool) -> Modules:
        """Returns the networks in training or evaluation mode."""
        return Modules(self, train)

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh variables."""
        return self.modules(train=False).init(key, jnp.zeros((1, *self.image_shape)), None)

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns Eq. 9, with one draw of the latents per image."""
        x = batch["image"]
        modules = self.modules(train=train)
        collections = [name for name in variables if name != "params"] if train else []
        levels: Any
        levels, mutable = modules.apply(
            variables, x, keys, method=split_levels, mutable=collections
        )
        # Batch norm's running statistics are those of images: the pass of the low level through
        # the high one normalises by its own batch and leaves them unchanged.
        x_zero: Any
        x_zero, _ = modules.apply(
            variables, levels, keys, method=through_high_level, mutable=collections
        )
        terms = loss_terms(Decomposition(levels, x_zero), x, self.variance)
        weights = dict(zip(self.parts.terms, self.weights, strict=True))
        return {"model": weighted_sum(terms, weights)}, LossAux(terms, mutable)

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by the terms of `image_score`; by default, the approximate negative ELBO.

        The pixel map is each pixel's share of the likelihood term without its constant,
        (x - x_hat)^2 / 2c averaged over channels. Systems with both levels also have such maps
        for terms 1 and 3, `high` (x - x_high) and `zero` (x_zero), and for what the low level
        alone explains, `low` (x_low). All terms are components; those that the score leaves out
        have no weight.

        The expectation over the posteriors (Eq. 8) is taken at their means, or as the mean over
        `score_samples` draws; components, maps and reconstructions are then means over the draws,
        and `mse` is the error of the mean reconstruction.
        All images get the same noise, so that a score depends on no other image. Draws matter if a
        posterior has collapsed to the prior: the decoder has then seen unit noise only, and its
        output at the mean, zero, is biased.
        """
        if not self.score_samples:
            return self._score(variables, images, None)

        def draw(key: Key[Array, ""]) -> tuple[Any, ...]:
            scores = self._score(variables, images, jnp.broadcast_to(key, images.shape[0]))
            return tuple(getattr(scores, field.name) for field in dataclasses.fields(scores))

        draws = jax.lax.map(draw, jax.random.split(jax.random.key(0), self.score_samples))
        scores = Scores(*jax.tree.map(lambda values: jnp.mean(values, axis=0), draws))
        reconstruction = jnp.asarray(scores.reconstructions["reconstruction"])
        mse = _mean_squared_error(images, reconstruction)
        return dataclasses.replace(scores, components={**scores.components, "mse": mse})

    def _score(self, variables: Variables, images: Images, keys: ExampleKeys | None) -> Scores:
        """Scores images with latents drawn by the given keys, or at their means."""
        parts: Any = self.modules(train=False).apply(variables, images, keys)
        terms = loss_terms(parts, images, self.variance)
        levels = parts.levels

        def energy(difference: Images) -> Float[Array, "batch height width"]:
            """Returns each pixel's term of a Gaussian NLL, without its constant."""
            return jnp.mean(difference**2, axis=-1) / (2 * self.variance)

        residual = energy(images - levels.x_hat)
        by_level = {"high": levels.x_high, "low": levels.x_low, "zero": parts.x_zero}
        maps = {}
        if parts.x_zero is None:
            by_level = {}  # a system of one level has no other image than its reconstruction
        else:
            maps = {
                "residual": residual,
                "high": energy(images - levels.x_high),
                "low": energy(levels.x_low),
                "zero": energy(parts.x_zero),
            }
        return Scores(
            image=weighted_sum(terms, self.score_weights),
            pixel=residual,
            components={**terms, "mse": _mean_squared_error(images, levels.x_hat)},
            reconstructions={**by_level, "reconstruction": levels.x_hat},
            maps=maps,
        )


def _mean_squared_error(images: Images, reconstruction: Images) -> PerExample:
    return jnp.mean((images - reconstruction) ** 2, axis=(1, 2, 3))


class ConditionalHierarchicalVAE(HierarchicalVAE):
    """chVAE: pchVAE "without the dark blue part and term 3 in Eq. 3"."""

    parts = Parts(x_high=False)


class HighVAE(HierarchicalVAE):
    """High VAE: the high-level part alone, "the green and blue parts in Fig. 1"; 4 up-samplings."""

    parts = Parts(z2=False)


class LowVAE(HierarchicalVAE):
    """Low VAE: the low-level part alone; 2 up-samplings."""

    parts = Parts(z1=False, x_high=False)
