"""DifferNet: a flow over pooled features of several scales, averaged over rotated views.

Rudolph, Wandt and Rosenhahn 2021, "Same Same But DifferNet: Semi-Supervised Defect Detection with
Normalizing Flows" (WACV). The frozen encoder sees each view T(x) of an image at several scales;
y joins the means of the features over positions, of each scale and of each of `strides` (the paper
has one stride):

    L      = - log p(z') - log |det dz'/dy|, per dimension                            (Eq. 2)
    score  = mean over views of - log p(z'), per dimension                            (Eq. 4)
    map    = mean over views of sum over channels of |G * T^-1(gradient of L in T(x))|
                                                                             (its Section 3.4)

The paper trains on views of random angles and scores fixed ones. Here both use the same equally
spaced angles, of which each update draws some: the features of an image are then the same in every
epoch and can be cached.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxad.errors import UserError
from jaxad.models.pretrained import StridesSystem
from jaxad.nn import networks, ops
from jaxad.nn.fields import Interval
from jaxad.nn.flow import Flow, FlowSettings, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

Views = Float[Array, "batch views features"]
Map = Float[Array, "batch height width"]
Image = Float[Array, "height width channels"]

#: Standard deviation of the map's Gaussian G relative to the image: 3 of the authors' 448 pixels.
_SMOOTHING = 3 / 448


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifferNet(StridesSystem):
    """DifferNet as a `jaxad.types.TrainedModel` and `jaxad.types.PretrainedModel`.

    Attributes:
        scales: factors by which the image is shrunk for each part of y.
        views: number of rotations, by multiples of a full turn over `views`.
        update_views: views of each image in an update, drawn without replacement.
        num_blocks: blocks of the flow.
        hidden_widths: see `jaxad.nn.flow.FlowSettings`.
    """

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS
    score_weights: ClassVar[Mapping[str, float]] = {"latent_nll": 1.0}

    scales: Annotated[tuple[int, ...], Interval("[1, inf)")]
    views: Annotated[int, Interval("[1, inf)")]
    update_views: Annotated[int, Interval("[1, inf)")]
    num_blocks: int
    hidden_widths: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width, channels = self.image_shape
        for scale in self.scales:
            if height % scale or width % scale:
                raise UserError(
                    f"config.model.scales: {scale} does not divide the image size {height}; choose "
                    "a divisor."
                )
            self._encoder.check_images((height // scale, width // scale, channels))
        if self.update_views > self.views:
            raise UserError(
                f"config.model.update_views: {self.update_views} is more than config.model.views "
                f"({self.views}); choose a smaller number."
            )
        self.flow(train=False)  # checks its fields

    @property
    def num_latents(self) -> int:
        """The number of dimensions of z'."""
        channels = self._encoder.architecture.channels
        return len(self.scales) * sum(channels[stride] for stride in self.strides)

    def flow(self, *, train: bool) -> Flow:
        """Returns the flow in training or evaluation mode; a vector is a map of one position."""
        settings = FlowSettings(
            num_blocks=self.num_blocks, subnet="dense", hidden_widths=self.hidden_widths
        )
        return Flow(self.num_latents, settings, train, self.axis_name, self.dtype)

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns a fresh flow; the encoder's variables are NaN until they are read."""
        flow = self.flow(train=False).init(key, jnp.zeros((1, 1, 1, self.num_latents)))
        return {**networks.join({"flow": flow}), "encoder": self._encoder.unread_variables}

    @property
    def encoder_description(self) -> str:
        """Everything that features depend on besides the encoder's variables and the image."""
        means = f"means of {self.strides} at {self.scales} of {self.views} rotations"
        return f"{self._encoder.description}, {means}"

    def features(self, variables: Variables, images: Images) -> Views:
        """Returns y of every view, float32 [B, views, D]."""
        # One view after another: all at once would multiply the memory.
        views = jax.lax.map(
            lambda angle: self._encode(variables, _rotate_all(images, angle)), self._angles
        )
        return jnp.moveaxis(views, 0, 1)

    @property
    def _angles(self) -> Float[Array, " views"]:
        return 2 * math.pi / self.views * jnp.arange(self.views)

    def _encode(self, variables: Variables, images: Images) -> Float[Array, "batch features"]:
        """Returns y of the given images, without rotating them."""
        batch, height, width, channels = images.shape
        parts = []
        for scale in self.scales:
            smaller = (batch, height // scale, width // scale, channels)
            with jax.default_matmul_precision("highest"):
                levels = self._encoder.pyramid(
                    variables["encoder"],
                    jax.image.resize(images, smaller, method="linear"),
                    self.strides,
                )
            for level, stride in zip(levels, self.strides, strict=True):
                z = level * self._factor(variables, stride).astype(level.dtype)
                parts.append(jnp.mean(ops.full_precision(z), axis=(1, 2)))
        return jnp.concatenate(parts, axis=1)

    def _factor(self, variables: Variables, stride: int) -> Float[Array, ""]:
        """Returns the factor of a stride's features: the encoder's is that of the coarsest."""
        deviations = self._encoder.architecture.deviations
        return variables["encoder"]["scale"] * (deviations[max(self.strides)] / deviations[stride])

    def _likelihood_terms(
        self, variables: Variables, y: Views, *, train: bool
    ) -> tuple[dict[str, Float[Array, "batch views"]], Variables]:
        """Returns the likelihood terms of every view (nats per dimension) and updated variables."""
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
        """Returns the negative log-likelihood per dimension.

        It is the mean over views: in training over `update_views`, drawn by the image's key; else
        over all.
        """
        x = batch["image"]
        drawn = jax.vmap(self._draw)(keys)
        if "features" in batch:
            y = batch["features"]
            y = jnp.take_along_axis(y, drawn[:, :, None], axis=1) if train else y
        elif train:
            angles = self._angles[drawn]
            views = [
                self._encode(variables, jax.vmap(_rotate)(x, angles[:, view]))
                for view in range(self.update_views)
            ]
            y = jnp.stack(views, axis=1)
        else:
            y = self.features(variables, x)
        y = jax.lax.stop_gradient(ops.full_precision(y))
        by_view, variables = self._likelihood_terms(variables, y, train=train)
        terms = {name: jnp.mean(term, axis=1) for name, term in by_view.items()}
        return {"model": terms["feature_nll"]}, LossAux(terms, networks.state_of(variables))

    def _draw(self, key: Key[Array, ""]) -> Int[Array, " views"]:
        """Draws the numbers of the views of one image in an update."""
        return jax.random.permutation(key, self.views)[: self.update_views]

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by the mean over views; maps average the views' smoothed gradients."""

        def terms_of(view: Images) -> dict[str, PerExample]:
            y = self._encode(variables, view)[:, None]
            terms, _ = self._likelihood_terms(variables, y, train=False)
            return {name: term[:, 0] for name, term in terms.items()}

        def map_of(angle: Float[Array, ""]) -> Map:
            gradient = jax.grad(lambda view: jnp.sum(terms_of(view)["feature_nll"]))(
                _rotate_all(images, angle)
            )
            back = _smooth(_rotate_all(gradient, -angle))
            return jnp.sum(jnp.abs(back), axis=-1)

        # Two loops over the views: the second is not compiled where maps are not asked for. The
        # gradient is taken inside of the loop: the memory of one view is enough.
        by_view = jax.lax.map(lambda angle: terms_of(_rotate_all(images, angle)), self._angles)
        terms = {name: jnp.mean(term, axis=0) for name, term in by_view.items()}
        return Scores(
            image=terms["latent_nll"],
            pixel=jnp.mean(jax.lax.map(map_of, self._angles), axis=0),
            components=terms,
            reconstructions={},
        )


def _rotate(image: Image, angle: Float[Array, ""]) -> Image:
    """Rotates about the centre, with linear interpolation and a black background."""
    # dm_pix annotates the angle as a float; traced ones work as well.
    rotate: Callable[..., Image] = dm_pix.rotate
    return rotate(image, angle, order=1, mode="constant")


def _rotate_all(images: Images, angle: Float[Array, ""]) -> Images:
    return jax.vmap(_rotate, in_axes=(0, None))(images, angle)


def _smooth(maps: Images) -> Images:
    """Smooths maps with a Gaussian whose standard deviation is at least one pixel."""
    deviation = max(1.0, maps.shape[1] * _SMOOTHING)
    size = 2 * math.ceil(3 * deviation) + 1
    return dm_pix.gaussian_blur(maps, deviation, size, padding="SAME")
