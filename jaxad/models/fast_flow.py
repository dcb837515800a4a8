"""FastFlow: a two-dimensional flow for the features of each level of a frozen encoder.

Yu et al. 2021, "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing
Flows". Of an image, the features of each level are normalised (layer norm, without which the flow
does not train: its reproductions found it), and a flow with convolutional subnets makes z' of them:

    L   = - log p(z') - log |det dz'/dz|, of all levels, per dimension
    map = - log mean over levels of exp l,  l = mean over channels of log N(z'; 0, I), upsampled
    S   = the largest value of the map

The paper's map is that mean itself, negative: a density, which underflows to 0 far from the normal
images, where all anomalies would then score alike. Its logarithm does not; and what is upsampled
(linearly) is the log density, so that between places of a level the two differ.

The layer norm has no parameters of its own: a trained scale before the flow would raise the
likelihood without bound, the features shrinking to a point.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.nn import backbones, networks
from jaxad.nn.flow import Flow, FlowSettings, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

FeatureMap = Float[Array, "batch _ _ _"]
Flat = Float[Array, "batch numbers"]

IMAGE_SCORES = ("max", "mean")

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class FastFlow:
    """FastFlow as a `jaxad.types.PretrainedModel`.

    Attributes:
        image_shape: (H, W, C); H and W are multiples of the largest stride, C is 1 or 3.
        backbone: one of `jaxad.nn.backbones.ARCHITECTURES`.
        weights: see `jaxad.models.ae_flow.AEFlow`.
        strides: of the levels.
        num_blocks: of each level's flow; see `jaxad.nn.flow.FlowSettings`.
        subnet: see there.
        image_score: what of the map is the image's score: `max` or `mean`.
        dtype: of the convolutions; parameters, z and z' stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    backbone: str
    weights: str
    strides: tuple[int, ...]
    num_blocks: int
    subnet: str
    image_score: str
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if not self.strides:
            raise UserError("config.model.strides: (); name at least one.")
        known = self._encoder.strides
        if not set(self.strides) <= set(known) or len(set(self.strides)) < len(self.strides):
            raise UserError(
                f"config.model.strides: {self.strides}; '{self.backbone}' has features of strides "
                f"{', '.join(map(str, known))}; name each once."
            )
        self._encoder.check_images(self.image_shape)
        self._settings  # noqa: B018 - checks its fields
        if self.image_score not in IMAGE_SCORES:
            raise UserError(
                f"config.model.image_score: unknown '{self.image_score}'; "
                f"known: {', '.join(IMAGE_SCORES)}."
            )

    @property
    def networks(self) -> Mapping[str, str]:
        """One loss trains all flows; the encoder is no parameter."""
        return {"model": ".*"}

    @property
    def num_latents(self) -> int:
        """Dimensions of the z' of all levels."""
        return sum(rows * columns * channels for rows, columns, channels in self._shapes)

    @property
    def _encoder(self) -> backbones.Backbone:
        return backbones.Backbone(self.backbone, stride=max(self.strides), dtype=self.dtype)

    @property
    def _shapes(self) -> list[tuple[int, int, int]]:
        """(rows, columns, channels) of each level's features."""
        height, width, _ = self.image_shape
        return [
            (height // stride, width // stride, self._encoder.channels_at(stride))
            for stride in self.strides
        ]

    @property
    def _settings(self) -> FlowSettings:
        return FlowSettings(num_blocks=self.num_blocks, subnet=self.subnet)

    def flows(self, *, train: bool) -> list[Flow]:
        """The flow of each level in training or in evaluation mode."""
        return [
            Flow(
                channels=channels,
                settings=self._settings,
                train=train,
                axis_name=self.axis_name,
                dtype=self.dtype,
                precision=None if train else "highest",
            )
            for _, _, channels in self._shapes
        ]

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the components that the score is the sum of; see `jaxad.types.Model`."""
        return {f"map_{self.image_score}": 1.0}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables of the flows; the encoder's are NaN until they are read."""
        keys = jax.random.split(key, len(self.strides))
        flows = {
            f"flow_{level}": flow.init(keys[level], jnp.zeros((1, *self._shapes[level])))
            for level, flow in enumerate(self.flows(train=False))
        }
        return {**networks.join(flows), "encoder": self._encoder.unread_variables}

    @property
    def frozen_collections(self) -> tuple[str, ...]:
        """See `jaxad.types.PretrainedModel`."""
        return ("encoder",)

    @property
    def encoder_description(self) -> str:
        """See `jaxad.types.PretrainedModel`."""
        return f"{self._encoder.description}, pyramid of {self.strides}"

    def pretrained_variables(self, key: Key[Array, ""]) -> Variables:
        """See `jaxad.types.PretrainedModel`."""
        return {"encoder": self._encoder.pretrained_variables(self.weights, key)}

    def features(self, variables: Variables, images: Images) -> Flat:
        """The features of all levels, one after another; normalised, float32."""
        with jax.default_matmul_precision("highest"):
            levels = self._encoder.pyramid(variables["encoder"], images, self.strides)
        exact = jnp.promote_types(levels[0].dtype, jnp.float32)
        return jnp.concatenate(
            [_layer_norm(level.astype(exact)).reshape(images.shape[0], -1) for level in levels],
            axis=1,
        )

    def _levels(self, features: Flat) -> list[FeatureMap]:
        found, start = [], 0
        for shape in self._shapes:
            size = shape[0] * shape[1] * shape[2]
            found.append(features[:, start : start + size].reshape(-1, *shape))
            start += size
        return found

    def _passed(
        self, variables: Variables, features: Flat, *, train: bool
    ) -> tuple[list[tuple[FeatureMap, Float[Array, "batch _ _"]]], Variables]:
        """z' and every place's log-det of each level, and the variables after it."""
        passed = []
        levels = zip(self.flows(train=train), self._levels(features), strict=True)
        for level, (flow, z) in enumerate(levels):
            found, variables = networks.apply(variables, f"flow_{level}", flow, z, train=train)
            passed.append(found)
        return passed, variables

    def _likelihood_terms(self, passed: list) -> dict[str, PerExample]:
        """Per dimension, in nats: -log p(z), -log p(z') and log |det dz'/dz| of all levels."""
        densities = [jnp.sum(standard_normal_log_density(z), axis=(1, 2)) for z, _ in passed]
        shares = [jnp.sum(share, axis=(1, 2)) for _, share in passed]
        latent, log_det = -jnp.sum(jnp.stack(densities), axis=0), jnp.sum(jnp.stack(shares), axis=0)
        return {
            "feature_nll": (latent - log_det) / self.num_latents,
            "latent_nll": latent / self.num_latents,
            "log_det": log_det / self.num_latents,
        }

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """The nll per dimension; the keys are not used. See `jaxad.types.Model`."""
        x = batch["image"]
        z = batch["features"] if "features" in batch else self.features(variables, x)
        z = jax.lax.stop_gradient(z.astype(jnp.promote_types(z.dtype, jnp.float32)))
        passed, variables = self._passed(variables, z, train=train)
        terms = self._likelihood_terms(passed)
        return {"model": terms["feature_nll"]}, LossAux(terms, networks.state_of(variables))

    def score(self, variables: Variables, images: Images) -> Scores:
        """The map's largest value or its mean; the map is the nll of each place, in nats."""
        passed, _ = self._passed(variables, self.features(variables, images), train=False)
        shape = (images.shape[0], *self.image_shape[:2])
        levels = [
            jax.image.resize(
                standard_normal_log_density(z_prime) / z_prime.shape[-1], shape, method="linear"
            )
            for z_prime, _ in passed
        ]
        pixel = math.log(len(levels)) - jax.nn.logsumexp(jnp.stack(levels), axis=0)
        parts = {
            "map_max": jnp.max(pixel, axis=(1, 2)),
            "map_mean": jnp.mean(pixel, axis=(1, 2)),
        }
        return Scores(
            image=parts[f"map_{self.image_score}"],
            pixel=pixel,
            components={**self._likelihood_terms(passed), **parts},
            reconstructions={},
        )


def _layer_norm(x: FeatureMap) -> FeatureMap:
    """Mean 0 and variance 1 of all numbers of each image."""
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=(1, 2, 3), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + _EPSILON)
