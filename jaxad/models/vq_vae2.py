"""VQ-VAE-2 with two levels, as the pchVAE paper uses it for comparison.

Razavi, van den Oord and Vinyals 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2",
without its second stage (the prior over codes): the pchVAE paper reconstructs and scores with the
autoencoder alone. Layout and sizes are those of the implementation that the paper names
(github.com/rosinality/vq-vae-2-pytorch), with 2x2 convolutions of stride 2 for its 4x4 ones, as in
all models of this package (`jaxad.nn.blocks`).

    bottom features = two downsamplings to H/4, 3x3, residual stack
    top features    = one downsampling to H/8, 3x3, residual stack      -> codes of the top level
    bottom vectors  = 1x1 of (bottom features, decoded top codes)       -> codes of the bottom level
    x_hat           = 3x3 of (upsampled top codes, bottom codes), residual stack, two upsamplings
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxad.nn import blocks, networks, ops
from jaxad.nn.fields import Interval, check_halvings
from jaxad.nn.quantiser import Quantised, Quantiser
from jaxad.nn.system_fields import SystemFields
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

FeatureMap = Float[Array, "batch rows columns features"]
AnyMap = Float[Array, "batch _ _ _"]
Reconstruction = tuple[Images, Quantised, Quantised]


class Modules(nn.Module):
    """Maps images to their reconstruction and their top and bottom codes."""

    system: "VQVAE2"
    train: bool

    def _down(self, features: int) -> blocks.Down:
        return blocks.Down(
            features=features, depth=0, norm="none", activation=nn.relu, train=self.train,
            axis_name=None, dtype=self.system.dtype,
        )  # fmt: skip

    def _up(self, x: AnyMap, features: int) -> FeatureMap:
        """Doubles height and width; the input comes from an activation."""
        x = blocks.dense(4 * features, self.system.dtype)(x)
        return blocks.depth_to_space(x, 2)

    def _stack(self, x: AnyMap) -> FeatureMap:
        """Applies a 3x3 convolution and the residual stack."""
        system = self.system
        x = blocks.conv3x3(system.channels, system.dtype)(x)
        return blocks.Bottleneck(system.residual_blocks, system.residual_channels, system.dtype)(x)

    def _quantise(
        self, x: FeatureMap, valid: Bool[Array, " batch"], index: Int[Array, " batch"], name: str
    ) -> Quantised:
        # Distances and the codebook's averages need full precision.
        system = self.system
        vectors = blocks.dense(system.code_dimension)(ops.full_precision(x))
        return Quantiser(
            num_codes=system.num_codes, dimension=system.code_dimension, decay=system.decay,
            train=self.train, axis_name=system.axis_name if self.train else None, name=name,
        )(vectors, valid, index)  # fmt: skip

    @nn.compact
    def __call__(
        self, x: Images, valid: Bool[Array, " batch"], index: Int[Array, " batch"]
    ) -> Reconstruction:
        channels, dimension = self.system.channels, self.system.code_dimension
        bottom = nn.relu(self._down(channels // 2)(x.astype(self.system.dtype)))
        bottom = self._stack(nn.relu(self._down(channels)(bottom)))
        top = self._stack(nn.relu(self._down(channels // 2)(bottom)))

        top_codes = self._quantise(top, valid, index, "top")
        top_vectors = top_codes.vectors.astype(self.system.dtype)
        top_decoded = self._up(self._stack(top_vectors), dimension)
        bottom_codes = self._quantise(
            jnp.concatenate([top_decoded, bottom], axis=-1), valid, index, "bottom"
        )

        codes = [self._up(top_vectors, dimension), bottom_codes.vectors]
        y = self._stack(jnp.concatenate(codes, axis=-1))
        y = self._up(nn.relu(self._up(y, channels // 2)), self.system.image_shape[-1])
        return ops.full_precision(y), top_codes, bottom_codes


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQVAE2(SystemFields):
    """VQ-VAE-2 as a `jaxad.types.TrainedModel`; height and width are multiples of 8.

    Attributes:
        channels: channels of the features at H/4 and H/8.
        residual_blocks: blocks in each residual stack.
        residual_channels: hidden channels of a residual block.
        num_codes: entries of each of the two codebooks.
        code_dimension: channels of a code.
        decay: decay of the codebooks' moving averages.
        commitment: weight beta of the commitment terms.
    """

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS

    channels: Annotated[int, Interval("[2, inf)")]
    residual_blocks: Annotated[int, Interval("[0, inf)")]
    residual_channels: Annotated[int, Interval("[1, inf)")]
    num_codes: Annotated[int, Interval("[2, inf)")]
    code_dimension: Annotated[int, Interval("[1, inf)")]
    decay: Annotated[float, Interval("[0, 1)")]
    commitment: Annotated[float, Interval("[0, inf)")]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_halvings(self.image_shape, 3)

    @property
    def num_latents(self) -> int:
        """The number of codes of an image, top and bottom."""
        height, width, _ = self.image_shape
        return (height // 4) * (width // 4) + (height // 8) * (width // 8)

    def modules(self, *, train: bool) -> Modules:
        """Returns the networks in training or evaluation mode."""
        return Modules(self, train)

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the loss, which is the score."""
        names = ("commitment_top", "commitment_bottom")
        return {"mse": 1.0, **dict.fromkeys(names, self.commitment)}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh variables: `params` and `codebook`."""
        return self.modules(train=False).init(key, *_as_batch(jnp.zeros((1, *self.image_shape))))

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns squared error + beta * (commitment of both levels), means over dimensions.

        Eq. 1 of VQ-VAE-2 with moving averages for the codebook term; `keys` are not used.
        """
        x = batch["image"]
        outputs: Any
        outputs, mutable = self.modules(train=train).apply(
            variables, x, batch["_valid"], batch["_index"],
            mutable=["codebook"] if train else [],
        )  # fmt: skip
        x_hat, top, bottom = outputs
        terms = _terms(x, x_hat, top, bottom)
        loss = terms["mse"] + self.commitment * (
            terms["commitment_top"] + terms["commitment_bottom"]
        )
        used = {"perplexity_top": top.perplexity, "perplexity_bottom": bottom.perplexity}
        shown = {name: jnp.broadcast_to(value, len(x)) for name, value in used.items()}
        return {"model": loss}, LossAux({**terms, **shown}, mutable)

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by the loss; the map is the squared error, averaged over channels."""
        outputs: Any = self.modules(train=False).apply(variables, *_as_batch(images))
        x_hat, top, bottom = outputs
        terms = _terms(images, x_hat, top, bottom)
        commitment = terms["commitment_top"] + terms["commitment_bottom"]
        return Scores(
            image=terms["mse"] + self.commitment * commitment,
            pixel=jnp.mean((images - x_hat) ** 2, axis=-1),
            components=terms,
            reconstructions={"reconstruction": x_hat},
        )


def _as_batch(images: Images) -> tuple[Images, Bool[Array, " batch"], Int[Array, " batch"]]:
    """Returns images as a batch with `_valid` and `_index`, which only training uses."""
    batch = images.shape[0]  # not `len`: exported programs take any number
    return images, jnp.ones(batch, bool), jnp.arange(batch, dtype=jnp.int32)


def _terms(x: Images, x_hat: Images, top: Quantised, bottom: Quantised) -> dict[str, PerExample]:
    """Returns the unweighted terms of the loss, each [B]."""
    return {
        "mse": jnp.mean((x - x_hat) ** 2, axis=(1, 2, 3)),
        "commitment_top": top.commitment,
        "commitment_bottom": bottom.commitment,
    }
