"""AE: a convolutional autoencoder, the simplest system of AE-FLOW's Table 1.

Kramer 1991, "Nonlinear principal component analysis using autoassociative neural networks", with
convolutions for images: x_hat = g(f(x)) through a vector that is too short to copy the image, its
squared error both the loss and the score.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from jaxad.nn import networks
from jaxad.nn.autoencoder import Layout
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables


@dataclasses.dataclass(frozen=True)
class AutoEncoder:
    """A convolutional autoencoder as a `jaxad.types.Model`.

    Attributes:
        image_shape: see `jaxad.nn.autoencoder.Layout`, as the next four.
        widths: see there.
        depth: see there.
        latents: see there.
        norm: see there.
        dtype: of the convolutions; parameters stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    depth: int
    latents: int
    norm: str
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self._layout  # noqa: B018 - checks the fields

    @property
    def networks(self) -> Mapping[str, str]:
        """One loss trains both."""
        return {"model": ".*"}

    @property
    def num_latents(self) -> int:
        """Of the vector between encoder and decoder."""
        return self.latents

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the components that the score is the sum of; see `jaxad.types.Model`."""
        return {"mse": 1.0}

    @property
    def _layout(self) -> Layout:
        return Layout(
            self.image_shape, self.widths, self.depth, self.latents, self.norm, self.dtype,
            self.axis_name,
        )  # fmt: skip

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables of `encoder` and `decoder`."""
        encoder_key, decoder_key = jax.random.split(key)
        images, z = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latents))
        decoder = self._layout.generator(train=False, bounded=False)
        return networks.join(
            {
                "encoder": self._layout.encoder(train=False).init(encoder_key, images),
                "decoder": decoder.init(decoder_key, z),
            }
        )

    def _reconstruct(
        self, variables: Variables, images: Images, *, train: bool
    ) -> tuple[Images, Variables]:
        """x_hat, and the variables with updated statistics of batch norm."""
        (z, _), variables = networks.apply(
            variables, "encoder", self._layout.encoder(train=train), images, train=train
        )
        decoder = self._layout.generator(train=train, bounded=False)
        return networks.apply(variables, "decoder", decoder, z, train=train)

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """The squared error, mean over pixels and channels; the keys are not used."""
        x = batch["image"]
        x_hat, updated = self._reconstruct(variables, x, train=train)
        mse = jnp.mean((x - x_hat) ** 2, axis=(1, 2, 3))
        return {"model": mse}, LossAux({"mse": mse}, networks.state_of(updated))

    def score(self, variables: Variables, images: Images) -> Scores:
        """The squared error; the map is that of each pixel, averaged over channels."""
        x_hat, _ = self._reconstruct(variables, images, train=False)
        pixel = jnp.mean((images - x_hat) ** 2, axis=-1)
        mse = jnp.mean(pixel, axis=(1, 2))
        return Scores(
            image=mse,
            pixel=pixel,
            components={"mse": mse},
            reconstructions={"reconstruction": x_hat},
        )
