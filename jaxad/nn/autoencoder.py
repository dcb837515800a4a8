"""Convolutional encoders of images to a vector, and generators of images from a vector."""

import dataclasses
from functools import partial
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.errors import UserError
from jaxad.nn import blocks, ops
from jaxad.nn.fields import Interval, OneOf, check_halvings
from jaxad.nn.system_fields import SystemFields
from jaxad.types import Images

FeatureMap = Float[Array, "batch rows columns features"]
Vectors = Float[Array, "batch latents"]

#: DCGAN's activation (Radford et al. 2016).
activation = partial(nn.leaky_relu, negative_slope=0.2)


class _Network(nn.Module):
    """Base of encoders and generators; see `LatentSystem` for the fields.

    With `train`, batch norm uses the batch's statistics. Outputs are float32.
    """

    widths: tuple[int, ...]
    depth: int
    norm: str
    train: bool
    axis_name: str | None
    dtype: DTypeLike

    def _normalise(self, x: FeatureMap) -> FeatureMap:
        return blocks.Norm(self.norm, self.train, self.axis_name, self.dtype)(x)

    def _resample(
        self, block: type[blocks.Down] | type[blocks.Up], x: FeatureMap, features: int, depth: int
    ) -> Float[Array, "batch _ _ _"]:
        common = (self.norm, activation, self.train, self.axis_name, self.dtype)
        return block(depth, *common, features=features)(x)


class Encoder(_Network):
    """Maps images to vectors [B, latents]; also returns the last features [B, h, w, c].

    It is also a GAN's discriminator, whose output is the only latent.

    Attributes:
        latents: length of the vector.
    """

    latents: int

    @nn.compact
    def __call__(self, x: Images) -> tuple[Vectors, FeatureMap]:
        x = x.astype(self.dtype)
        for level, width in enumerate(self.widths):
            x = self._resample(blocks.Down, x, width, self.depth if level else 0)
            x = activation(self._normalise(x))
        vectors = nn.Dense(self.latents, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        return ops.full_precision(vectors), ops.full_precision(x)


class Generator(_Network):
    """Maps vectors [B, latents] to images [B, H, W, image_channels]; mirrors an `Encoder`.

    Attributes:
        image_shape: (H, W, image_channels).
        bounded: whether a sigmoid keeps the images in (0, 1).
    """

    image_shape: tuple[int, int, int]
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
            x = self._resample(blocks.Up, self._normalise(x), features, depth)
        x = ops.full_precision(x)
        return nn.sigmoid(x) if self.bounded else x


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSystem(SystemFields):
    """Base of systems of convolutional encoders and generators that share their sizes.

    Attributes:
        widths: channels after each halving of height and width, multiples of 2 ** their number.
        depth: residual 3x3 convolutions at each resolution except the image's.
        latents: length of the vector between encoder and generator.
        norm: kind of normalisation, one of `jaxad.nn.blocks.NORMS`.

    Raises:
        UserError: the sizes do not fit the image or the norm.
    """

    widths: Annotated[tuple[int, ...], Interval("[1, inf)")]
    depth: Annotated[int, Interval("[0, inf)")]
    latents: Annotated[int, Interval("[1, inf)")]
    norm: Annotated[str, OneOf(blocks.NORMS)]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_halvings(self.image_shape, len(self.widths))
        if self.norm == "group" and any(width % 8 for width in self.widths):
            raise UserError(f"config.model.widths: {self.widths}; group norm needs multiples of 8.")

    @property
    def num_latents(self) -> int:
        """Length of the vector between encoder and generator."""
        return self.latents

    def _sizes(self, train: bool) -> dict[str, Any]:
        """Returns the fields that encoders and generators share."""
        return {
            "widths": self.widths,
            "depth": self.depth,
            "norm": self.norm,
            "train": train,
            "axis_name": self.axis_name if train else None,
            "dtype": self.dtype,
        }

    def encoder(
        self, *, train: bool, latents: int | None = None, norm: str | None = None
    ) -> Encoder:
        """Returns an encoder; `latents` and `norm` are the system's by default."""
        sizes = {**self._sizes(train), "norm": norm or self.norm}
        return Encoder(**sizes, latents=latents or self.latents)

    def generator(self, *, train: bool, bounded: bool) -> Generator:
        """Returns a generator of images from vectors of `latents` numbers."""
        return Generator(**self._sizes(train), image_shape=self.image_shape, bounded=bounded)

    def example_inputs(self) -> tuple[Images, Vectors]:
        """Returns an image and a vector of zeros, to initialise networks with."""
        return jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latents))
