"""AE-FLOW: a frozen encoder, a normalising flow on its features, and a decoder behind the flow.

Zhao et al. 2023, "AE-FLOW: Autoencoders with Normalizing Flows for Medical Images Anomaly
Detection". Of an image x:

    z  = encoder(x)                        frozen, pretrained on ImageNet, of stride 16
    z' = flow(z)                           standard normal if x is normal
    x' = decoder(z')                       three times (2x2 transposed convolution of stride 2,
                                           3x3 convolution), then one transposed convolution
    L  = alpha L_flow + (1 - alpha) L_recon                                        (Eq. 1)
    S  = beta S_flow + (1 - beta) S_recon,  S_flow = -p(z'),  S_recon = -SSIM      (Eq. 2)

p(z') of thousands of dimensions underflows to 0, so that the literal S_flow is the same for every
image; `exp_mean` is minus the density's geometric mean over the dimensions, -p(z')^(1/D), and
`nll_mean` the negative logarithm of that mean.

jaxad also takes features of several strides, with a flow for each (`flow_levels`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from jaxad.errors import UserError
from jaxad.models.flow_levels import FlowLevels, Level, Transformed, top_tenth
from jaxad.models.pretrained import Flat
from jaxad.nn import blocks, networks, ops
from jaxad.nn.fields import Interval, OneOf
from jaxad.nn.flow import FlowSettings, likelihood_terms, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

_FLOW_SCORES = ("exp_mean", "nll_mean", "literal", "feature_nll", "top_tenth")


class Decoder(nn.Module):
    """Maps z' of all levels to images [B, H, W, image_channels], with a linear output.

    A coarser level is doubled to the size of the next finer one and joined to it.

    Attributes:
        widths: channels after each doubling from the finest level's stride to 2.
        image_channels: C of the images.
        dtype: dtype of the convolutions.
    """

    widths: tuple[int, ...]
    image_channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, levels: Sequence[Level]) -> Images:
        x, *finer = sorted(levels, key=lambda level: level.shape[1])
        x = x.astype(self.dtype)
        for level in finer:
            while x.shape[1] < level.shape[1]:
                x = self._double(x, level.shape[-1])
            x = jnp.concatenate([x, level.astype(self.dtype)], axis=-1)
        for width in self.widths:
            x = self._double(x, width)
        x = blocks.depth_to_space(blocks.dense(4 * self.image_channels, self.dtype)(x), 2)
        return ops.full_precision(x)

    def _double(self, x: Level, width: int) -> Level:
        """Applies a 2x2 transposed convolution of stride 2 and a 3x3 one, with ReLU."""
        x = nn.relu(blocks.depth_to_space(blocks.dense(4 * width, self.dtype)(x), 2))
        return nn.relu(blocks.conv3x3(width, self.dtype)(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AEFlow(FlowLevels):
    """AE-FLOW as a `jaxad.types.TrainedModel` and `jaxad.types.PretrainedModel`.

    Attributes:
        num_blocks: blocks of the flow; this and the next five are documented in
            `jaxad.nn.flow.FlowSettings`.
        decoder_widths: channels after the decoder's doublings from the finest stride to 2; () for
            1/2, 1/4, ... and 1/16 of the channels of all levels, rounded up to multiples of 16, as
            in the paper: 512, 256 and 64 of 1024.
        alpha: weight of the flow in the loss.
        beta: weight of the flow in the score.
        reconstruction_loss: `mse`, or `ssim` for 1 - SSIM.
        flow_loss: `per_dimension`, or `sum` over the dimensions (the paper's text; the mean squared
            error is then negligible).
        flow_score: S_flow: `exp_mean`, `nll_mean`, `literal`; or, of the exact -log p(z), which
            counts the log-det as well, `feature_nll`, its mean per dimension, or `top_tenth`
            (`jaxad.models.flow_levels.top_tenth`).
        pixel_map: name of the map that is the anomaly map.
    """

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS
    decodes: ClassVar[bool] = True

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
    flow_score: Annotated[str, OneOf(_FLOW_SCORES)]
    pixel_map: Annotated[str, OneOf(("residual", "ssim", "flow"))]

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.image_shape[:2]) < ops.SSIM_WINDOW:
            raise UserError(
                f"config.data.image_size: {self.image_shape[0]} is less than SSIM's window "
                f"({ops.SSIM_WINDOW}); choose a larger one."
            )
        self._settings  # noqa: B018 - checks its fields
        count = self._num_doublings
        if self.decoder_widths and (
            len(self.decoder_widths) != count or min(self.decoder_widths) < 1
        ):
            raise UserError(
                f"config.model.decoder_widths: {self.decoder_widths}; with the strides "
                f"{self.strides}, give {count} numbers of at least 1, or ()."
            )

    @property
    def _settings(self) -> FlowSettings:
        names = [field.name for field in dataclasses.fields(FlowSettings)]
        # `hidden_widths` is of a subnet that AE-FLOW does not have, `zero_start` is set elsewhere.
        return FlowSettings(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    @property
    def _num_doublings(self) -> int:
        """Doublings from the finest stride to 2."""
        return min(self.strides).bit_length() - 2

    @property
    def _decoder(self) -> Decoder:
        # Rounded up: convolutions of few channels are slow unless these are multiples of 16.
        parts = [2 ** (number + 1) for number in range(self._num_doublings - 1)] + [16]
        widths = self.decoder_widths or tuple(
            16 * -(-self._total_channels // (16 * part)) for part in parts
        )
        return Decoder(widths, self.image_shape[-1], self.dtype)

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of Eq. 2."""
        return {"flow_score": self.beta, "reconstruction_score": 1 - self.beta}

    @property
    def decay_factors(self) -> Mapping[str, float]:
        """Scales the flows' weight decay as its loss; see `jaxad.types.TrainedModel`."""
        return {r"flow_\d+/.*": 1 / self.num_latents} if self.flow_loss == "per_dimension" else {}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh flows and decoder; the encoder's variables are NaN until they are read."""
        flow_key, decoder_key = jax.random.split(key)
        levels = [jnp.zeros((1, *shape)) for shape in self._shapes]
        decoder = self._decoder.init(decoder_key, levels)
        return {
            **networks.join({**self._init_flows(flow_key), "decoder": decoder}),
            "encoder": self._encoder.unread_variables,
        }

    def _decode(
        self, variables: Variables, features: Flat, *, train: bool
    ) -> tuple[Transformed, Images, Variables]:
        """Runs features through flows and decoder.

        Returns:
            z' and each position's part of the log-det by level, the reconstruction, and updated
            variables.
        """
        transformed, variables = self._transform(variables, features, train=train)
        levels = self._decodable(variables, transformed)
        x_hat, _ = networks.apply(variables, "decoder", self._decoder, levels)
        return transformed, x_hat, variables

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns Eq. 1; deterministic, `keys` are not used."""
        x, z = batch["image"], self._batch_features(variables, batch)
        transformed, x_hat, variables = self._decode(variables, z, train=train)
        terms = likelihood_terms(transformed)
        terms["mse"] = jnp.mean((x - x_hat) ** 2, axis=(1, 2, 3))
        reconstruction = terms["mse"]
        if self.reconstruction_loss == "ssim":
            similarity = ops.structural_similarity(x, x_hat)
            terms["ssim"] = jnp.mean(similarity, axis=(1, 2, 3))
            reconstruction = 1 - terms["ssim"]
        flow = terms["feature_nll"] * (self.num_latents if self.flow_loss == "sum" else 1)
        loss = self.alpha * flow + (1 - self.alpha) * reconstruction
        return {"model": loss}, LossAux(terms, networks.state_of(variables))

    def _flow_score(self, terms: Mapping[str, PerExample]) -> PerExample:
        """Returns S_flow from the terms of the likelihood."""
        if self.flow_score in ("feature_nll", "top_tenth"):
            return terms[self.flow_score]
        if self.flow_score == "nll_mean":
            return terms["latent_nll"]
        dimensions = self.num_latents if self.flow_score == "literal" else 1
        return -jnp.exp(-terms["latent_nll"] * dimensions)

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by Eq. 2; its two parts are components, so that any beta follows from them.

        The maps are the squared error, 1 - SSIM (the nearest full window's at the border), and each
        position's share of the negative log-likelihood, linearly interpolated; each averaged over
        channels, the last over levels, too. Features see the whole image, so that a position's
        share also reflects its surroundings.
        """
        z = self.features(variables, images)
        transformed, x_hat, _ = self._decode(variables, z, train=False)
        terms = likelihood_terms(transformed) | {"top_tenth": top_tenth(transformed)}
        residual = jnp.mean((images - x_hat) ** 2, axis=-1)
        similarity = jnp.mean(ops.structural_similarity(images, x_hat), axis=-1)
        terms["mse"] = jnp.mean(residual, axis=(1, 2))
        terms["ssim"] = jnp.mean(similarity, axis=(1, 2))
        terms["flow_score"] = self._flow_score(terms)
        terms["reconstruction_score"] = -terms["ssim"]
        densities = [
            jax.image.resize(
                (standard_normal_log_density(z_prime) + log_det) / z_prime.shape[-1],
                images.shape[:3],
                method="linear",
            )
            for z_prime, log_det in transformed
        ]
        border = (ops.SSIM_WINDOW // 2,) * 2  # where no window fits
        maps = {
            "residual": residual,
            "ssim": jnp.pad(1 - similarity, ((0, 0), border, border), mode="edge"),
            "flow": -jnp.mean(jnp.stack(densities), axis=0),
        }
        return Scores(
            image=self.beta * terms["flow_score"] + (1 - self.beta) * terms["reconstruction_score"],
            pixel=maps[self.pixel_map],
            components=terms,
            reconstructions={"reconstruction": x_hat},
            maps=maps,
        )
