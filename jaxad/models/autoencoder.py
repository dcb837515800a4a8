"""AE: a convolutional autoencoder, the simplest system of AE-FLOW's Table 1.

Kramer 1991, "Nonlinear principal component analysis using autoassociative neural networks", with
convolutions for images: x_hat = g(f(x)) through a vector that is too short to copy the image. The
squared error is both the loss and the score.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxad.nn import networks
from jaxad.nn.autoencoder import LatentSystem
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoEncoder(LatentSystem):
    """A convolutional autoencoder as a `jaxad.types.TrainedModel`."""

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS
    score_weights: ClassVar[Mapping[str, float]] = {"mse": 1.0}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh variables of `encoder` and `decoder`."""
        encoder_key, decoder_key = jax.random.split(key)
        images, z = self.example_inputs()
        decoder = self.generator(train=False, bounded=False)
        return networks.join(
            {
                "encoder": self.encoder(train=False).init(encoder_key, images),
                "decoder": decoder.init(decoder_key, z),
            }
        )

    def _reconstruct(
        self, variables: Variables, images: Images, *, train: bool
    ) -> tuple[Images, Variables]:
        """Returns x_hat, and the variables with updated statistics of batch norm."""
        (z, _), variables = networks.apply(
            variables, "encoder", self.encoder(train=train), images, train=train
        )
        decoder = self.generator(train=train, bounded=False)
        return networks.apply(variables, "decoder", decoder, z, train=train)

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns the squared error, averaged over pixels and channels; `keys` are not used."""
        x = batch["image"]
        x_hat, updated = self._reconstruct(variables, x, train=train)
        mse = jnp.mean((x - x_hat) ** 2, axis=(1, 2, 3))
        return {"model": mse}, LossAux({"mse": mse}, networks.state_of(updated))

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by the squared error; the map is each pixel's, averaged over channels."""
        x_hat, _ = self._reconstruct(variables, images, train=False)
        pixel = jnp.mean((images - x_hat) ** 2, axis=-1)
        mse = jnp.mean(pixel, axis=(1, 2))
        return Scores(
            image=mse,
            pixel=pixel,
            components={"mse": mse},
            reconstructions={"reconstruction": x_hat},
        )
