"""DifferNet: a flow over pooled features of several scales, averaged over rotated views.

Rudolph, Wandt and Rosenhahn 2021, "Same Same But DifferNet: Semi-Supervised Defect Detection with
Normalizing Flows" (WACV). Of an image, each view T(x) is seen by the frozen encoder at several
scales; the features, averaged over places and joined, are y:

    L      = - log p(z') - log |det dz'/dy|, per dimension                            (Eq. 2)
    score  = mean over views of - log p(z'), per dimension                            (Eq. 4)
    map    = mean over views of sum over channels of |G * T^-1(gradient of L in T(x))|
                                                                             (its Section 3.4)

The paper trains on views of random angles and scores fixed ones. Here both are the same fixed ones,
equally spaced, of which each update draws one per image: the features of an image are then the same
in every epoch, and a cache can hold them.
"""

import dataclasses
import math
from collections.abc import Mapping

import dm_pix
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.nn import backbones, networks
from jaxad.nn.flow import Flow, FlowSettings, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

Views = Float[Array, "batch views features"]
Map = Float[Array, "batch height width"]
Image = Float[Array, "height width channels"]

#: Standard deviation of the map's Gaussian G: 3 of the authors' 448 pixels, and one at least.
_SMOOTHING = 3 / 448


@dataclasses.dataclass(frozen=True)
class DifferNet:
    """DifferNet as a `jaxad.types.PretrainedModel`.

    Attributes:
        image_shape: (H, W, C); H and W are multiples of the stride at every scale, C is 1 or 3.
        backbone: one of `jaxad.nn.backbones.ARCHITECTURES`.
        weights: see `jaxad.models.ae_flow.AEFlow`.
        stride: of the encoder's features.
        scales: how many times smaller the image is that the encoder sees, for each part of y.
        views: rotations of an image, by multiples of a full turn over their number.
        num_blocks: see `jaxad.nn.flow.FlowSettings`.
        dtype: of encoder and subnets; parameters, y and z' stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    backbone: str
    weights: str
    stride: int
    scales: tuple[int, ...]
    views: int
    num_blocks: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if self.stride not in self._encoder.strides:
            raise UserError(
                f"config.model.stride: {self.stride}; '{self.backbone}' has features of strides "
                f"{', '.join(map(str, self._encoder.strides))}."
            )
        if not self.scales or min(self.scales) < 1:
            raise UserError(f"config.model.scales: {self.scales}; give at least one, all positive.")
        height, width, channels = self.image_shape
        for scale in self.scales:
            if height % scale or width % scale:
                raise UserError(
                    f"config.model.scales: {scale} does not divide the image size {height}."
                )
            self._encoder.check_images((height // scale, width // scale, channels))
        if self.views < 1:
            raise UserError(f"config.model.views: {self.views} is less than 1.")
        self.flow(train=False)  # checks its fields

    @property
    def networks(self) -> Mapping[str, str]:
        """One loss trains the flow; the encoder is no parameter."""
        return {"model": ".*"}

    @property
    def num_latents(self) -> int:
        """Dimensions of z'."""
        return len(self.scales) * self._encoder.channels

    @property
    def _encoder(self) -> backbones.Backbone:
        return backbones.Backbone(self.backbone, stride=self.stride, dtype=self.dtype)

    def flow(self, *, train: bool) -> Flow:
        """The flow in training or in evaluation mode; a vector is a map of one place."""
        return Flow(
            channels=self.num_latents,
            settings=FlowSettings(num_blocks=self.num_blocks, subnet="dense"),
            train=train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            precision=None if train else "highest",
        )

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the components that the score is the sum of; see `jaxad.types.Model`."""
        return {"latent_nll": 1.0}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables of the flow; the encoder's are NaN until they are read."""
        flow = self.flow(train=False).init(key, jnp.zeros((1, 1, 1, self.num_latents)))
        return {**networks.join({"flow": flow}), "encoder": self._encoder.unread_variables}

    @property
    def frozen_collections(self) -> tuple[str, ...]:
        """See `jaxad.types.PretrainedModel`."""
        return ("encoder",)

    @property
    def encoder_description(self) -> str:
        """See `jaxad.types.PretrainedModel`."""
        return f"{self._encoder.description}, means at {self.scales} of {self.views} rotations"

    def pretrained_variables(self, key: Key[Array, ""]) -> Variables:
        """See `jaxad.types.PretrainedModel`."""
        return {"encoder": self._encoder.pretrained_variables(self.weights, key)}

    def features(self, variables: Variables, images: Images) -> Views:
        """y of every view, [B, views, D], float32."""
        # One view after another: all at once would take their number times the memory.
        found = jax.lax.map(
            lambda angle: self._seen(variables, _all_rotated(images, angle)), self._angles
        )
        return jnp.moveaxis(found, 0, 1)

    @property
    def _angles(self) -> Float[Array, " views"]:
        return 2 * math.pi / self.views * jnp.arange(self.views)

    def _seen(self, variables: Variables, images: Images) -> Float[Array, "batch features"]:
        batch, height, width, channels = images.shape
        parts = []
        for scale in self.scales:
            smaller = (batch, height // scale, width // scale, channels)
            with jax.default_matmul_precision("highest"):
                z = self._encoder.features(
                    variables["encoder"], jax.image.resize(images, smaller, method="linear")
                )
            exact = jnp.promote_types(z.dtype, jnp.float32)
            parts.append(jnp.mean(z.astype(exact), axis=(1, 2)))
        return jnp.concatenate(parts, axis=1)

    def _likelihood_terms(
        self, variables: Variables, y: Views, *, train: bool
    ) -> tuple[dict[str, Float[Array, "batch views"]], Variables]:
        """Per dimension, in nats, of every view; and the variables after it."""
        maps = y.reshape(-1, 1, 1, self.num_latents)
        (z_prime, log_det), variables = networks.apply(
            variables, "flow", self.flow(train=train), maps, train=train
        )
        shape, dimensions = y.shape[:2], self.num_latents
        latent = -standard_normal_log_density(z_prime).reshape(shape) / dimensions
        log_det = log_det.reshape(shape) / dimensions
        terms = {"feature_nll": latent - log_det, "latent_nll": latent, "log_det": log_det}
        return terms, variables

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """The nll per dimension; of one view of each image that its key draws, in training."""
        x = batch["image"]
        drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.views))(keys)
        if "features" in batch:
            y = batch["features"]
            y = jnp.take_along_axis(y, drawn[:, None, None], axis=1) if train else y
        elif train:
            y = self._seen(variables, jax.vmap(_rotated)(x, self._angles[drawn]))[:, None]
        else:
            y = self.features(variables, x)
        y = jax.lax.stop_gradient(y.astype(jnp.promote_types(y.dtype, jnp.float32)))
        found, variables = self._likelihood_terms(variables, y, train=train)
        terms = {name: jnp.mean(term, axis=1) for name, term in found.items()}
        return {"model": terms["feature_nll"]}, LossAux(terms, networks.state_of(variables))

    def score(self, variables: Variables, images: Images) -> Scores:
        """The mean over views; the map is the mean of their smoothed gradients' sizes."""

        def terms_of(view: Images) -> dict[str, PerExample]:
            y = self._seen(variables, view)[:, None]
            found, _ = self._likelihood_terms(variables, y, train=False)
            return {name: term[:, 0] for name, term in found.items()}

        def map_of(angle: Float[Array, ""]) -> Map:
            gradient = jax.grad(lambda view: jnp.sum(terms_of(view)["feature_nll"]))(
                _all_rotated(images, angle)
            )
            back = _smoothed(_all_rotated(gradient, -angle))
            return jnp.sum(jnp.abs(back), axis=-1)

        # Two loops over the views: where maps are not asked for, theirs is not compiled. The
        # gradient is taken inside of its loop: the memory of one view is enough.
        found = jax.lax.map(lambda angle: terms_of(_all_rotated(images, angle)), self._angles)
        terms = {name: jnp.mean(term, axis=0) for name, term in found.items()}
        return Scores(
            image=terms["latent_nll"],
            pixel=jnp.mean(jax.lax.map(map_of, self._angles), axis=0),
            components=terms,
            reconstructions={},
        )


def _rotated(image: Image, angle: Float[Array, ""]) -> Image:
    """About the centre, linearly interpolated; what comes from outside is background."""
    # dm_pix annotates a float and takes traced angles as well.
    return dm_pix.rotate(image, angle, order=1, mode="constant")  # type: ignore[arg-type]


def _all_rotated(images: Images, angle: Float[Array, ""]) -> Images:
    return jax.vmap(_rotated, in_axes=(0, None))(images, angle)


def _smoothed(maps: Images) -> Images:
    deviation = max(1.0, maps.shape[1] * _SMOOTHING)
    size = 2 * math.ceil(3 * deviation) + 1
    return dm_pix.gaussian_blur(maps, deviation, size, padding="SAME")
