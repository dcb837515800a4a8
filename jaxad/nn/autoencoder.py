"""Convolutional encoders of images to a vector, and generators of images from a vector."""

import dataclasses
from functools import partial
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.errors import UserError
from jaxad.nn import blocks, ops
from jaxad.nn.fields import Interval, OneOf, check_fields, check_halvings
from jaxad.types import Images

FeatureMap = Float[Array, "batch rows columns features"]
Vectors = Float[Array, "batch latents"]

#: DCGAN's activation (Radford et al. 2016).
activation = partial(nn.leaky_relu, negative_slope=0.2)


class Encoder(nn.Module):
    """Maps images to vectors [B, latents]; also returns the last features [B, h, w, c].

    It is also a GAN's discriminator, with its verdict as the only latent.

    Attributes:
        widths: channels after each halving of height and width.
        depth: residual 3x3 convolutions at each resolution below the first, which has most pixels.
        latents: length of the vector.
        norm: kind of normalisation, one of `jaxad.nn.blocks.NORMS`.
        train: whether batch norm uses the batch's statistics.
        axis_name: axis that batch norm averages over in training.
        dtype: dtype of the convolutions; the vector is float32.
    """

    widths: tuple[int, ...]
    depth: int
    latents: int
    norm: str
    train: bool
    axis_name: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Images) -> tuple[Vectors, FeatureMap]:
        x = x.astype(self.dtype)
        for level, width in enumerate(self.widths):
            depth = self.depth if level else 0
            x = blocks.Down(
                width, depth, self.norm, activation, self.train, self.axis_name, self.dtype
            )(x)
            x = activation(blocks.Norm(self.norm, self.train, self.axis_name, self.dtype)(x))
        vectors = nn.Dense(self.latents, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        return ops.full_precision(vectors), ops.full_precision(x)


class Generator(nn.Module):
    """Maps vectors [B, latents] to images [B, H, W, image_channels].

    Attributes:
        image_shape: (H, W, image_channels).
        widths: those of the `Encoder` that it mirrors, in the encoder's order.
        depth: residual 3x3 convolutions at each resolution below the last.
        norm: kind of normalisation, one of `jaxad.nn.blocks.NORMS`.
        train: whether batch norm uses the batch's statistics.
        axis_name: axis that batch norm averages over in training.
        dtype: dtype of the convolutions; images are float32.
        bounded: whether a sigmoid keeps the images in (0, 1).
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    depth: int
    norm: str
    train: bool
    axis_name: str | None
    dtype: DTypeLike
    bounded: bool

    @nn.compact
    def __call__(self, z: Vectors) -> Images:
        height, width, channels = self.image_shape
        factor = 2 ** len(self.widths)
        rows, columns = height // factor, width // factor
        x = nn.Dense(rows * columns * self.widths[-1], dtype=self.dtype)(z.astype(self.dtype))
        x = x.reshape(z.shape[0], rows, columns, self.widths[-1])
        outputs = (*self.widths[-2::-1], channels)
        for level, features in enumerate(outputs, start=1):
            depth = self.depth if level < len(outputs) else 0
            x = blocks.Norm(self.norm, self.train, self.axis_name, self.dtype)(x)
            x = blocks.Up(
                features, depth, self.norm, activation, self.train, self.axis_name, self.dtype
            )(x)
        x = ops.full_precision(x)
        return nn.sigmoid(x) if self.bounded else x


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSystem:
    """Base of systems of convolutional encoders and generators that share their sizes.

    Attributes:
        image_shape: (H, W, C); H and W are multiples of 2 to the number of `widths`.
        widths: channels after each halving of height and width.
        depth: residual 3x3 convolutions at each resolution but the image's.
        latents: length of the vector between encoder and generator.
        norm: kind of normalisation, one of `jaxad.nn.blocks.NORMS`.
        dtype: dtype of the convolutions; parameters stay float32.
        axis_name: axis that batch statistics are averaged over; see `jaxad.types.Model`.

    Raises:
        UserError: the sizes do not fit the image or the norm.
    """

    image_shape: tuple[int, int, int]
    widths: Annotated[tuple[int, ...], Interval("[1, inf)")]
    depth: Annotated[int, Interval("[0, inf)")]
    latents: Annotated[int, Interval("[1, inf)")]
    norm: Annotated[str, OneOf(blocks.NORMS)]
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_halvings(self.image_shape, len(self.widths))
        if self.norm == "group" and any(width % 8 for width in self.widths):
            raise UserError(f"config.model.widths: {self.widths}; group norm needs multiples of 8.")

    @property
    def num_latents(self) -> int:
        """Length of the vector between encoder and generator."""
        return self.latents

    def encoder(
        self, *, train: bool, latents: int | None = None, norm: str | None = None
    ) -> Encoder:
        """Returns an encoder; `latents` and `norm` are the system's by default."""
        return Encoder(
            widths=self.widths,
            depth=self.depth,
            latents=self.latents if latents is None else latents,
            norm=self.norm if norm is None else norm,
            train=train,
            axis_name=self.axis_name if train else None,
            dtype=self.dtype,
        )

    def generator(self, *, train: bool, bounded: bool) -> Generator:
        """Returns a generator of images from vectors of `latents` numbers."""
        return Generator(
            image_shape=self.image_shape,
            widths=self.widths,
            depth=self.depth,
            norm=self.norm,
            train=train,
            axis_name=self.axis_name if train else None,
            dtype=self.dtype,
            bounded=bounded,
        )

    def example_inputs(self) -> tuple[Images, Vectors]:
        """Returns an image and a vector of zeros, to initialise networks with."""
        return jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latents))
