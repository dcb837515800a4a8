"""Convolutional encoders of images to a vector, and generators of images from one."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.errors import UserError
from jaxad.nn import blocks
from jaxad.types import Images

FeatureMap = Float[Array, "batch rows columns features"]
Vectors = Float[Array, "batch latents"]

#: DCGAN's activation (Radford et al. 2016).
activation = partial(nn.leaky_relu, negative_slope=0.2)


class Encoder(nn.Module):
    """Images to vectors [B, latents], and the last features [B, h, w, c] on the way to them.

    Also a GAN's discriminator: one "latent" is its verdict.

    Attributes:
        widths: channels after each halving of height and width.
        depth: residual 3x3 convolutions at each resolution below the first, which has most pixels.
        latents: of the vector.
        norm: see `jaxad.nn.blocks.Norm`.
        train: whether batch norm uses the batch's statistics.
        axis_name: see `jaxad.types.Model`.
        dtype: of the convolutions; the vector is float32.
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
        exact = jnp.promote_types(x.dtype, jnp.float32)
        return vectors.astype(exact), x.astype(exact)


class Generator(nn.Module):
    """Vectors [B, latents] to images [B, H, W, image_channels].

    Attributes:
        image_shape: (H, W, image_channels).
        widths: of the encoder that it mirrors.
        depth: see `Encoder`, as the rest.
        norm: see there.
        train: see there.
        axis_name: see there.
        dtype: see there.
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
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return nn.sigmoid(x) if self.bounded else x


@dataclasses.dataclass(frozen=True)
class Layout:
    """The sizes that encoders and generators of one system share.

    Attributes:
        image_shape: (H, W, C); H and W are multiples of 2 to the number of `widths`.
        widths: see `Encoder`.
        depth: see there.
        latents: of the vector between them.
        norm: see there.
        dtype: see there.
        axis_name: see there.

    Raises:
        UserError: sizes that cannot be.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    depth: int
    latents: int
    norm: str
    dtype: DTypeLike
    axis_name: str | None

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"config.model.widths: {self.widths}; give at least one, all positive.")
        factor = 2 ** len(self.widths)
        if any(side % factor for side in self.image_shape[:2]):
            raise UserError(
                f"config.data.image_size: {self.image_shape[0]} cannot be halved "
                f"{len(self.widths)} times, as config.model.widths ask; choose a multiple of "
                f"{factor}."
            )
        if self.norm not in blocks.NORMS:
            raise UserError(
                f"config.model.norm: unknown norm '{self.norm}'; known: {', '.join(blocks.NORMS)}."
            )
        if self.norm == "group" and any(width % 8 for width in self.widths):
            raise UserError(f"config.model.widths: {self.widths}; group norm needs multiples of 8.")
        if self.depth < 0 or self.latents < 1:
            raise UserError(
                f"config.model: depth {self.depth} is negative, or latents {self.latents} are "
                "less than 1."
            )

    def encoder(
        self, *, train: bool, latents: int | None = None, norm: str | None = None
    ) -> Encoder:
        """Of so many latents and this norm; by default the layout's."""
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
        """From the layout's latents to its images."""
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
