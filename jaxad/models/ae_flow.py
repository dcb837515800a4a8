"""AE-FLOW: a frozen encoder, a normalising flow on its features, and a decoder behind the flow.

Zhao et al. 2023, "AE-FLOW: Autoencoders with Normalizing Flows for Medical Images Anomaly
Detection". Of an image x:

    z  = encoder(x)                        frozen, pretrained on ImageNet, a sixteenth of the size
    z' = flow(z)                           standard normal if x is normal
    x' = decoder(z')                       three times (2x2 transposed convolution of stride 2,
                                           3x3 convolution), then one transposed convolution
    L  = alpha L_flow + (1 - alpha) L_recon                                        (Eq. 1)
    S  = beta S_flow + (1 - beta) S_recon,  S_flow = -p(z'),  S_recon = -SSIM      (Eq. 2)

p(z') of thousands of dimensions underflows to 0, so that the literal S_flow is the same for every
image; `exp_mean` is minus the density's geometric mean over the dimensions, -p(z')^(1/D), and
`nll_mean` the negative logarithm of that mean.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.models.pretrained import PretrainedSystem
from jaxad.nn import blocks, networks, ops
from jaxad.nn.backbones import Backbone
from jaxad.nn.convolution import conv_general_dilated
from jaxad.nn.fields import Interval, OneOf
from jaxad.nn.flow import Flow, FlowSettings, likelihood_terms, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Tree, Variables

FeatureMap = Float[Array, "batch rows columns features"]
PlaceMap = Float[Array, "batch rows columns"]


class Decoder(nn.Module):
    """Maps z' [B, H / 16, W / 16, C] to images [B, H, W, image_channels], with a linear output.

    `widths` are the channels after the first three doublings.
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
        return ops.full_precision(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AEFlow(PretrainedSystem):
    """AE-FLOW as a `jaxad.types.TrainedModel` and `jaxad.types.PretrainedModel`.

    Attributes:
        num_blocks: blocks of the flow; this and the next five are documented in
            `jaxad.nn.flow.FlowSettings`.
        decoder_widths: channels after the decoder's first three doublings; () for 1/2, 1/4 and
            1/16 of the features' channels, rounded up to multiples of 16, as in the paper: 512, 256
            and 64 of 1024.
        alpha: weight of the flow in the loss.
        beta: weight of the flow in the score.
        reconstruction_loss: `mse`, or `ssim` for 1 - SSIM.
        flow_loss: `per_dimension`, or `sum` over the dimensions (the paper's text; the mean squared
            error is then negligible).
        flow_score: S_flow: `exp_mean`, `nll_mean` or `literal`.
        pixel_map: name of the map that is the anomaly map.
    """

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS

    num_blocks: int
    subnet: str
    permutation: str
    moves: str
    output_scale: float
    global_scale: float
    decoder_widths: tuple[int, ...]
    alpha: Annotated[float, Interval("[0, 1]")]
    beta: Annotated[float, Interval("[0, 1]")]
    reconstruction_loss: Annotated[str, OneOf(("mse", "ssim"))]
    flow_loss: Annotated[str, OneOf(("per_dimension", "sum"))]
    flow_score: Annotated[str, OneOf(("exp_mean", "nll_mean", "literal"))]
    pixel_map: Annotated[str, OneOf(("residual", "ssim", "flow"))]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._encoder.check_images(self.image_shape)
        if min(self.image_shape[:2]) < ops.SSIM_WINDOW:
            raise UserError(
                f"config.data.image_size: {self.image_shape[0]} is less than SSIM's window "
                f"({ops.SSIM_WINDOW}); choose a larger one."
            )
        self._flow_settings  # noqa: B018 - checks its fields
        if self.decoder_widths and (len(self.decoder_widths) != 3 or min(self.decoder_widths) < 1):
            raise UserError(
                f"config.model.decoder_widths: {self.decoder_widths}; give three numbers of at "
                "least 1, or ()."
            )

    @property
    def num_latents(self) -> int:
        """The number of dimensions of z'."""
        rows, columns, channels = self._feature_shape
        return rows * columns * channels

    @property
    def _encoder(self) -> Backbone:
        return Backbone(self.backbone, stride=16, dtype=self.dtype)

    @property
    def _feature_shape(self) -> tuple[int, int, int]:
        height, width, _ = self.image_shape
        stride = self._encoder.stride
        return height // stride, width // stride, self._encoder.channels

    @property
    def _flow_settings(self) -> FlowSettings:
        names = [field.name for field in dataclasses.fields(FlowSettings)]
        # `hidden_widths` is of a subnet that AE-FLOW does not have.
        return FlowSettings(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    def flow(self, *, train: bool) -> Flow:
        """Returns the flow in training or evaluation mode."""
        channels = self._encoder.channels
        return Flow(channels, self._flow_settings, train, self.axis_name, self.dtype)

    @property
    def _decoder(self) -> Decoder:
        channels = self._encoder.channels
        # Rounded up: convolutions of few channels are slow unless these are multiples of 16.
        widths = self.decoder_widths or tuple(
            16 * -(-channels // (16 * part)) for part in (2, 4, 16)
        )
        return Decoder(widths, self.image_shape[-1], self.dtype)

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of Eq. 2."""
        return {"flow_score": self.beta, "reconstruction_score": 1 - self.beta}

    @property
    def decay_factors(self) -> Mapping[str, float]:
        """Scales the flow's weight decay as its loss; see `jaxad.types.TrainedModel`."""
        return {"flow/.*": 1 / self.num_latents} if self.flow_loss == "per_dimension" else {}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns a fresh flow and decoder; the encoder's variables are NaN until they are read."""
        z = jnp.zeros((1, *self._feature_shape))
        flow_key, decoder_key = jax.random.split(key)
        flow = self.flow(train=False).init(flow_key, z)
        decoder = self._decoder.init(decoder_key, z)
        return {
            **flow,
            "params": {"flow": flow["params"], "decoder": decoder["params"]},
            "encoder": self._encoder.unread_variables,
        }

    def features(self, variables: Variables, images: Images) -> FeatureMap:
        """Returns z, float32."""
        # The same z for training, cache and score: accelerators would multiply in fewer bits.
        with jax.default_matmul_precision("highest"):
            return ops.full_precision(self._encoder.features(variables["encoder"], images))

    def _decode(
        self, variables: Variables, z: FeatureMap, *, train: bool
    ) -> tuple[tuple[FeatureMap, PlaceMap], Images, Mapping[str, Tree]]:
        """Runs z through flow and decoder.

        Returns:
            z' and each position's part of the log-det, the reconstruction, and the flow's updated
            statistics.
        """
        collections = {
            name: tree for name, tree in variables.items() if name not in ("params", "encoder")
        }
        transformed: Any
        transformed, updated = self.flow(train=train).apply(
            {"params": variables["params"]["flow"], **collections},
            z,
            mutable=list(collections) if train else [],
        )
        decoder_variables = {"params": variables["params"]["decoder"]}
        x_hat: Any = self._decoder.apply(decoder_variables, transformed[0])
        return transformed, x_hat, updated

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns Eq. 1; deterministic, `keys` are not used."""
        x, z = batch["image"], self._batch_features(variables, batch)
        transformed, x_hat, updated = self._decode(variables, z, train=train)
        terms = likelihood_terms([transformed])
        terms["mse"] = jnp.mean((x - x_hat) ** 2, axis=(1, 2, 3))
        reconstruction = terms["mse"]
        if self.reconstruction_loss == "ssim":
            similarity = ops.structural_similarity(x, x_hat)
            terms["ssim"] = jnp.mean(similarity, axis=(1, 2, 3))
            reconstruction = 1 - terms["ssim"]
        flow = terms["feature_nll"] * (self.num_latents if self.flow_loss == "sum" else 1)
        loss = self.alpha * flow + (1 - self.alpha) * reconstruction
        state = {**networks.state_of(variables), **updated} if train else {}
        return {"model": loss}, LossAux(terms, state)

    def _flow_score(self, latent_nll: PerExample) -> PerExample:
        """Returns S_flow from -log p(z') per dimension."""
        if self.flow_score == "nll_mean":
            return latent_nll
        dimensions = self.num_latents if self.flow_score == "literal" else 1
        return -jnp.exp(-latent_nll * dimensions)

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by Eq. 2; its two parts are components, so that any beta follows from them.

        The maps are the squared error, 1 - SSIM (the nearest full window's at the border), and each
        position's share of the negative log-likelihood, linearly interpolated; each averaged over
        channels. Features see the whole image, so that a position's share also reflects its
        surroundings.
        """
        z = self.features(variables, images)
        transformed, x_hat, _ = self._decode(variables, z, train=False)
        terms = likelihood_terms([transformed])
        residual = jnp.mean((images - x_hat) ** 2, axis=-1)
        similarity = jnp.mean(ops.structural_similarity(images, x_hat), axis=-1)
        terms["mse"] = jnp.mean(residual, axis=(1, 2))
        terms["ssim"] = jnp.mean(similarity, axis=(1, 2))
        terms["flow_score"] = self._flow_score(terms["latent_nll"])
        terms["reconstruction_score"] = -terms["ssim"]
        z_prime, log_det = transformed
        shares = -(standard_normal_log_density(z_prime) + log_det) / self._encoder.channels
        border = (ops.SSIM_WINDOW // 2,) * 2  # where no window fits
        maps = {
            "residual": residual,
            "ssim": jnp.pad(1 - similarity, ((0, 0), border, border), mode="edge"),
            "flow": jax.image.resize(shares, images.shape[:3], method="linear"),
        }
        return Scores(
            image=self.beta * terms["flow_score"] + (1 - self.beta) * terms["reconstruction_score"],
            pixel=maps[self.pixel_map],
            components=terms,
            reconstructions={"reconstruction": x_hat},
            maps=maps,
        )
