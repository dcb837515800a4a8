"""AE-FLOW: a frozen encoder, a normalizing flow on its features, and a decoder behind the flow.

Zhao et al. 2023, "AE-FLOW: Autoencoders with Normalizing Flows for Medical Images Anomaly
Detection". Of an image x:

    z  = encoder(x)                        frozen, pretrained on ImageNet, a sixteenth of the size
    z' = flow(z)                           to be standard normal where x is normal
    x' = decoder(z')                       three times (2x2 transposed convolution of stride 2,
                                           3x3 convolution), then a transposed convolution alone
    L  = alpha L_flow + (1 - alpha) L_recon                                        (Eq. 1)
    S  = beta S_flow + (1 - beta) S_recon,  S_flow = -p(z'),  S_recon = -SSIM      (Eq. 2)

p(z') of thousands of dimensions underflows to 0 for every image, so that the literal S_flow is the
same for all; `exp_mean` is the density's geometric mean over the dimensions, -p(z')^(1/D), and
`nll_mean` its negative logarithm.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.nn import backbones, blocks, ops
from jaxad.nn.convolution import conv_general_dilated
from jaxad.nn.flow import Flow, FlowSettings, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Tree, Variables

FeatureMap = Float[Array, "batch rows columns features"]
PlaceMap = Float[Array, "batch rows columns"]
PixelMap = Float[Array, "batch height width"]

RECONSTRUCTION_LOSSES = ("mse", "ssim")
FLOW_LOSSES = ("per_dimension", "sum")
FLOW_SCORES = ("exp_mean", "nll_mean", "literal")
PIXEL_MAPS = ("residual", "ssim", "flow")


class Decoder(nn.Module):
    """z' [B, H / 16, W / 16, C] to an image [B, H, W, image_channels], linear at its end.

    Attributes:
        widths: channels after the first three doublings.
        image_channels: of the image.
        dtype: of the convolutions.
    """

    widths: tuple[int, ...]
    image_channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: FeatureMap) -> Images:
        x = z.astype(self.dtype)
        for width in self.widths:
            x = nn.relu(blocks.depth_to_space(nn.Dense(4 * width, dtype=self.dtype)(x), 2))
            conv = nn.Conv(
                width, (3, 3), dtype=self.dtype, conv_general_dilated=conv_general_dilated
            )
            x = nn.relu(conv(x))
        x = blocks.depth_to_space(nn.Dense(4 * self.image_channels, dtype=self.dtype)(x), 2)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@dataclasses.dataclass(frozen=True)
class _Passed:
    """What an image becomes: z', the log-det's share of each place, and the reconstruction."""

    z_prime: FeatureMap
    log_det: PlaceMap
    reconstruction: Images


@dataclasses.dataclass(frozen=True)
class AEFlow:
    """AE-FLOW as a `jaxad.types.PretrainedModel`.

    Attributes:
        image_shape: (H, W, C); H and W are multiples of 16, C is 1 or 3.
        backbone: one of `jaxad.nn.backbones.ARCHITECTURES`.
        weights: where its weights come from (see `jaxad.nn.backbones.weights`): "" for those that
            need no download, "random" for an encoder that has seen nothing.
        num_blocks: see `jaxad.nn.flow.FlowSettings`, as the next five.
        subnet: see there.
        permutation: see there.
        moves: see there.
        output_scale: see there.
        global_scale: see there.
        decoder_widths: channels after the decoder's first three doublings; () for 1/2, 1/4 and
            1/16 of the features', rounded up to multiples of 16: of 1024 the paper's 512, 256, 64.
        alpha: weight of the flow in the loss, in [0, 1].
        beta: weight of the flow in the score, in [0, 1].
        reconstruction_loss: `mse` or `ssim` (1 - SSIM).
        flow_loss: `per_dimension`, or `sum` over them (the paper's text, in which the mean squared
            error is nothing beside it).
        flow_score: `exp_mean`, `nll_mean` or `literal`.
        pixel_map: the anomaly map: `residual`, `ssim` or `flow`.
        dtype: of the convolutions; parameters, z and z' stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    backbone: str
    weights: str
    num_blocks: int
    subnet: str
    permutation: str
    moves: str
    output_scale: float
    global_scale: float
    decoder_widths: tuple[int, ...]
    alpha: float
    beta: float
    reconstruction_loss: str
    flow_loss: str
    flow_score: str
    pixel_map: str
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self._encoder.check_images(self.image_shape)
        if min(self.image_shape[:2]) < ops.SSIM_WINDOW:
            raise UserError(
                f"config.data.image_size: {self.image_shape[0]} is less than SSIM's window."
            )
        self._flow_settings  # noqa: B018 - checks its fields
        known = {
            "reconstruction_loss": RECONSTRUCTION_LOSSES,
            "flow_loss": FLOW_LOSSES,
            "flow_score": FLOW_SCORES,
            "pixel_map": PIXEL_MAPS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise UserError(
                    f"config.model.{name}: unknown '{getattr(self, name)}'; "
                    f"known: {', '.join(values)}."
                )
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"config.model.{name}: {getattr(self, name)} is not in [0, 1].")
        if self.decoder_widths and (len(self.decoder_widths) != 3 or min(self.decoder_widths) < 1):
            raise UserError(
                f"config.model.decoder_widths: {self.decoder_widths}; give three numbers of at "
                "least 1, or ()."
            )

    @property
    def networks(self) -> Mapping[str, str]:
        """One loss trains flow and decoder; the encoder is no parameter."""
        return {"model": ".*"}

    @property
    def num_latents(self) -> int:
        """Dimensions of z'."""
        height, width, _ = self.image_shape
        stride = self._encoder.stride
        return (height // stride) * (width // stride) * self._encoder.channels

    @property
    def _encoder(self) -> backbones.Backbone:
        return backbones.Backbone(self.backbone, stride=16, dtype=self.dtype)

    @property
    def _flow_settings(self) -> FlowSettings:
        names = [field.name for field in dataclasses.fields(FlowSettings)]
        return FlowSettings(**{name: getattr(self, name) for name in names})

    def flow(self, *, train: bool) -> Flow:
        """The flow in training or in evaluation mode."""
        return Flow(
            channels=self._encoder.channels,
            settings=self._flow_settings,
            train=train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            precision=None if train else "highest",
        )

    @property
    def _decoder(self) -> Decoder:
        channels = self._encoder.channels
        # Rounded up: convolutions of few channels are slow where these are no multiple of 16.
        widths = self.decoder_widths or tuple(
            16 * -(-channels // (16 * part)) for part in (2, 4, 16)
        )
        return Decoder(widths, self.image_shape[-1], self.dtype)

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the components that the score is the sum of; see `jaxad.types.Model`."""
        return {"flow_score": self.beta, "reconstruction_score": 1 - self.beta}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables of flow and decoder; the encoder's are NaN until they are read."""
        height, width, _ = self.image_shape
        encoder = self._encoder
        z = jnp.zeros((1, height // encoder.stride, width // encoder.stride, encoder.channels))
        flow_key, decoder_key = jax.random.split(key)
        flow = self.flow(train=False).init(flow_key, z)
        decoder = self._decoder.init(decoder_key, z)
        return {
            **flow,
            "params": {"flow": flow["params"], "decoder": decoder["params"]},
            "encoder": encoder.unread_variables,
        }

    @property
    def frozen_collections(self) -> tuple[str, ...]:
        """See `jaxad.types.PretrainedModel`."""
        return ("encoder",)

    @property
    def encoder_description(self) -> str:
        """See `jaxad.types.PretrainedModel`."""
        return self._encoder.description

    def pretrained_variables(self, key: Key[Array, ""]) -> Variables:
        """The encoder's variables, read from where `weights` says; see `PretrainedModel`."""
        return {"encoder": self._encoder.pretrained_variables(self.weights, key)}

    def features(self, variables: Variables, images: Images) -> FeatureMap:
        """z, float32; a function of the image and the frozen encoder alone."""
        # One z for training, cache and score: accelerators would multiply in fewer bits.
        with jax.default_matmul_precision("highest"):
            z = self._encoder.features(variables["encoder"], images)
        return z.astype(jnp.promote_types(z.dtype, jnp.float32))

    def _passed(
        self, variables: Variables, z: FeatureMap, *, train: bool
    ) -> tuple[_Passed, Mapping[str, Tree]]:
        """z on its way through flow and decoder, and the flow's updated statistics."""
        collections = {
            name: tree for name, tree in variables.items() if name not in ("params", "encoder")
        }
        found: Any
        found, updated = self.flow(train=train).apply(
            {"params": variables["params"]["flow"], **collections},
            z,
            mutable=list(collections) if train else [],
        )
        z_prime, log_det = found
        reconstruction: Any = self._decoder.apply(
            {"params": variables["params"]["decoder"]}, z_prime
        )
        return _Passed(z_prime, log_det, reconstruction), updated

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Eq. 1; deterministic, the keys are not used.

        Where the batch has `features` these are z, computed before; see `jaxad.types.Model`.
        """
        x = batch["image"]
        z = batch["features"] if "features" in batch else self.features(variables, x)
        z = jax.lax.stop_gradient(z.astype(jnp.promote_types(z.dtype, jnp.float32)))
        passed, updated = self._passed(variables, z, train=train)
        terms = self._likelihood_terms(passed)
        terms["mse"] = jnp.mean((x - passed.reconstruction) ** 2, axis=(1, 2, 3))
        reconstruction = terms["mse"]
        if self.reconstruction_loss == "ssim":
            similarity = ops.structural_similarity(x, passed.reconstruction)
            terms["ssim"] = jnp.mean(similarity, axis=(1, 2, 3))
            reconstruction = 1 - terms["ssim"]
        flow = terms["feature_nll"] * (self.num_latents if self.flow_loss == "sum" else 1)
        loss = self.alpha * flow + (1 - self.alpha) * reconstruction
        frozen = {name: tree for name, tree in variables.items() if name != "params"}
        return {"model": loss}, LossAux(terms, {**frozen, **updated} if train else {})

    def _likelihood_terms(self, passed: _Passed) -> dict[str, PerExample]:
        """Per dimension, in nats: -log p(z'), log |det dz'/dz|, -log p(z)."""
        latent = -jnp.sum(standard_normal_log_density(passed.z_prime), axis=(1, 2))
        log_det = jnp.sum(passed.log_det, axis=(1, 2))
        return {
            "feature_nll": (latent - log_det) / self.num_latents,
            "latent_nll": latent / self.num_latents,
            "log_det": log_det / self.num_latents,
        }

    def _flow_score(self, latent_nll: PerExample) -> PerExample:
        """S_flow from -log p(z') per dimension."""
        if self.flow_score == "nll_mean":
            return latent_nll
        dimensions = self.num_latents if self.flow_score == "literal" else 1
        return -jnp.exp(-latent_nll * dimensions)

    def score(self, variables: Variables, images: Images) -> Scores:
        """Eq. 2. `flow_score` and `reconstruction_score` are components: any beta follows.

        The maps are the squared error, 1 - SSIM (at the border the nearest full window's), and each
        place's share of the nll, linearly interpolated; each averaged over channels. Features are
        those of the whole image, so that a place's share also tells of its surroundings.
        """
        passed, _ = self._passed(variables, self.features(variables, images), train=False)
        terms = self._likelihood_terms(passed)
        residual = jnp.mean((images - passed.reconstruction) ** 2, axis=-1)
        similarity = jnp.mean(ops.structural_similarity(images, passed.reconstruction), axis=-1)
        terms["mse"] = jnp.mean(residual, axis=(1, 2))
        terms["ssim"] = jnp.mean(similarity, axis=(1, 2))
        terms["flow_score"] = self._flow_score(terms["latent_nll"])
        terms["reconstruction_score"] = -terms["ssim"]
        maps = {
            "residual": residual,
            "ssim": _to_border(1 - similarity),
            "flow": _upsampled(
                -(standard_normal_log_density(passed.z_prime) + passed.log_det)
                / self._encoder.channels,
                images.shape[1:3],
            ),
        }
        return Scores(
            image=self.beta * terms["flow_score"] + (1 - self.beta) * terms["reconstruction_score"],
            pixel=maps[self.pixel_map],
            components=terms,
            reconstructions={"reconstruction": passed.reconstruction},
            maps=maps,
        )


def _to_border(similarity: PlaceMap) -> PixelMap:
    """Repeats the outermost values over the border where no window fits."""
    border = ops.SSIM_WINDOW // 2
    return jnp.pad(similarity, ((0, 0), (border, border), (border, border)), mode="edge")


def _upsampled(places: PlaceMap, shape: tuple[int, ...]) -> PixelMap:
    return jax.image.resize(places, (places.shape[0], *shape), method="linear")
