"""Bases of the systems that see an image through a frozen, pretrained encoder."""

import abc
import dataclasses
import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.nn import ops
from jaxad.nn.backbones import Backbone
from jaxad.nn.system_fields import SystemFields
from jaxad.types import Batch, Images, Variables

FeatureMap = Float[Array, "batch rows columns channels"]
#: The feature maps of one image at several strides, whose shapes differ.
Levels = list[Float[Array, "batch _ _ _"]]
Flat = Float[Array, "batch numbers"]
Features = Float[Array, "batch ..."]
PixelMap = Float[Array, "batch height width"]

#: Standard deviation of the Gaussian that smooths maps of distances, in pixels.
_SMOOTHING = 4.0
#: Added to the variances of the layer norm.
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedSystem(SystemFields, abc.ABC):
    """Base of a `jaxad.types.FeatureExtractor`; the encoder's variables are `encoder`.

    Height and width are multiples of every stride in use; images have 1 or 3 channels.

    Attributes:
        backbone: one of `jaxad.nn.backbones.ARCHITECTURES`.
        weights: source of the encoder's weights: "" for the ones that need no download, "random"
            for an untrained encoder, or a file or repository (`jaxad.nn.backbones.weights`).
    """

    frozen_collections: ClassVar[tuple[str, ...]] = ("encoder",)

    backbone: str
    weights: str

    @property
    @abc.abstractmethod
    def _encoder(self) -> Backbone: ...

    @property
    def encoder_description(self) -> str:
        """Everything that features depend on besides the encoder's variables and the image."""
        return self._encoder.description

    def pretrained_variables(self, key: Key[Array, ""]) -> Variables:
        """Reads the encoder's variables from `weights`; see `jaxad.types.PretrainedModel`."""
        return {"encoder": self._encoder.pretrained_variables(self.weights, key)}

    @abc.abstractmethod
    def features(self, variables: Variables, images: Images) -> Features:
        """Returns the features of images, float32."""

    def _batch_features(self, variables: Variables, batch: Batch) -> Features:
        """Returns the features that come with a batch, else computes them; without gradients."""
        is_cached = "features" in batch
        z = batch["features"] if is_cached else self.features(variables, batch["image"])
        return jax.lax.stop_gradient(ops.full_precision(z))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StridesSystem(PretrainedSystem):
    """Base of systems that use features of one or several strides.

    Attributes:
        strides: strides of the features, each one that the encoder has and given once.
    """

    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        known = Backbone(self.backbone).strides
        if not self.strides or sorted(set(self.strides) & set(known)) != sorted(self.strides):
            raise UserError(
                f"config.model.strides: {self.strides}; '{self.backbone}' has features of strides "
                f"{', '.join(map(str, known))}; name at least one, each once."
            )
        self._encoder.check_images(self.image_shape)

    @property
    def _encoder(self) -> Backbone:
        return Backbone(self.backbone, stride=max(self.strides), dtype=self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PyramidSystem(StridesSystem):
    """Base of systems that use the feature map of each stride."""

    @property
    def encoder_description(self) -> str:
        """Everything that features depend on besides the encoder's variables and the image."""
        return (
            f"{self._encoder.description}, pyramid of {self.strides}, "
            f"normalised by {self._normalisation}"
        )

    @property
    def _normalisation(self) -> Literal["deviation", "layer norm"]:
        """How levels are normalised; see `_normalise`."""
        return "deviation"

    @property
    def _shapes(self) -> list[tuple[int, int, int]]:
        """(rows, columns, channels) of each level."""
        height, width, _ = self.image_shape
        channels = self._encoder.architecture.channels
        return [(height // s, width // s, channels[s]) for s in self.strides]

    def features(self, variables: Variables, images: Images) -> Flat:
        """Returns the normalised features of all levels, flattened and concatenated; float32."""
        with jax.default_matmul_precision("highest"):
            levels = self._encoder.pyramid(variables["encoder"], images, self.strides)
        normalised = [
            self._normalise(ops.full_precision(level), stride)
            for level, stride in zip(levels, self.strides, strict=True)
        ]
        return jnp.concatenate([level.reshape(images.shape[0], -1) for level in normalised], axis=1)

    def _normalise(self, level: FeatureMap, stride: int) -> FeatureMap:
        """Normalises a level by `_normalisation`.

        `layer norm` gives each image's features of the level mean 0 and variance 1. `deviation`
        divides them by the standard deviation that pretrained features have on photographs. Random
        weights are divided by the same constants: their levels then have other standard deviations,
        and do not weigh the same in a distance over all levels.
        """
        if self._normalisation == "layer norm":
            mean = jnp.mean(level, axis=(1, 2, 3), keepdims=True)
            variance = jnp.mean((level - mean) ** 2, axis=(1, 2, 3), keepdims=True)
            return (level - mean) * jax.lax.rsqrt(variance + _EPSILON)
        return level / self._encoder.architecture.deviations[stride]

    def feature_maps(self, variables: Variables, images: Images) -> Levels:
        """Returns the normalised features of each stride, [B, rows, columns, channels]."""
        return self._levels(self.features(variables, images))

    def _levels(self, features: Flat) -> Levels:
        """Splits `features` into the maps of each level."""
        levels, start = [], 0
        for rows, columns, channels in self._shapes:
            size = rows * columns * channels
            level = features[:, start : start + size]
            levels.append(level.reshape(-1, rows, columns, channels))
            start += size
        return levels

    @property
    def _total_channels(self) -> int:
        """Channels of all levels together."""
        return sum(channels for _, _, channels in self._shapes)

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of the finest level."""
        height, width, _ = self.image_shape
        return height // min(self.strides), width // min(self.strides)

    @property
    def _num_places(self) -> int:
        """Places of the finest level."""
        return math.prod(self._grid)

    def _join(self, levels: Levels, method: Literal["linear", "nearest"]) -> FeatureMap:
        """Upsamples all levels to the finest one and concatenates their channels."""
        resized = [
            jax.image.resize(level, (level.shape[0], *self._grid, level.shape[3]), method)
            for level in levels
        ]
        return jnp.concatenate(resized, axis=-1)

    def _draw_map(self, distances: Float[Array, "batch places"]) -> PixelMap:
        """Upsamples the distances of the finest level's positions (bilinear) and smooths them."""
        shape = (distances.shape[0], *self.image_shape[:2])
        grid = distances.reshape(-1, *self._grid)
        return ops.gaussian_smoothing(jax.image.resize(grid, shape, "linear"), _SMOOTHING)
