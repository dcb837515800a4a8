"""GANomaly: encoder, decoder and a second encoder, against a discriminator.

Akcay, Atapour-Abarghouei and Breckon 2018, "GANomaly: Semi-Supervised Anomaly Detection via
Adversarial Training" (ACCV). Of an image x and the discriminator's features f:

    z = G_E(x),  x^ = G_D(z),  z^ = E(x^)
    generator       w_adv mean (f(x) - f(x^))^2 + w_con mean |x - x^| + w_enc mean (z - z^)^2
                                                                                    (Eq. 1 to 4)
    discriminator   cross-entropy of real and reconstructed images
    score           A(x) = |z - z^|_1, here a mean over dimensions                  (Eq. 5)

The paper then scales A to [0, 1] over the test set; that would make a score depend on other images
and changes no ranking.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from jaxad.errors import UserError
from jaxad.nn import networks
from jaxad.nn.autoencoder import Layout, Vectors
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables


@dataclasses.dataclass(frozen=True)
class _Passed:
    """What an image becomes."""

    z: Vectors
    reconstruction: Images
    z_hat: Vectors


@dataclasses.dataclass(frozen=True)
class GANomaly:
    """GANomaly as a `jaxad.types.Model`.

    Attributes:
        image_shape: see `jaxad.nn.autoencoder.Layout`, as the next four.
        widths: of all networks.
        depth: of all networks.
        latents: of z and z^.
        norm: of all networks.
        adversarial: w_adv.
        contextual: w_con.
        encoding: w_enc.
        dtype: of the convolutions; parameters stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    depth: int
    latents: int
    norm: str
    adversarial: float
    contextual: float
    encoding: float
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self._layout  # noqa: B018 - checks its fields
        for name in ("adversarial", "contextual", "encoding"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"config.model.{name}: {getattr(self, name)} is negative.")

    @property
    def networks(self) -> Mapping[str, str]:
        """Encoder, decoder and second encoder are one network, the generator."""
        return {
            "generator": "(encoder|decoder|second_encoder)/.*",
            "discriminator": "discriminator/.*",
        }

    @property
    def num_latents(self) -> int:
        """Dimensions of z."""
        return self.latents

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the components that the score is the sum of; see `jaxad.types.Model`."""
        return {"code_distance": 1.0}

    @property
    def _layout(self) -> Layout:
        return Layout(
            self.image_shape, self.widths, self.depth, self.latents, self.norm, self.dtype,
            self.axis_name,
        )  # fmt: skip

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables of the four networks."""
        keys = jax.random.split(key, 4)
        images, z = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latents))
        layout = self._layout
        encoder = layout.encoder(train=False)
        return networks.join(
            {
                "encoder": encoder.init(keys[0], images),
                "decoder": layout.generator(train=False, bounded=True).init(keys[1], z),
                "second_encoder": encoder.init(keys[2], images),
                "discriminator": self._discriminator(train=False).init(keys[3], images),
            }
        )

    def _discriminator(self, *, train: bool) -> Any:
        return self._layout.encoder(train=train, latents=1)

    def _passed(
        self, variables: Variables, images: Images, *, train: bool
    ) -> tuple[_Passed, Variables]:
        """An image's way through the generator, and the variables with updated statistics."""
        layout = self._layout
        encoder, decoder = layout.encoder(train=train), layout.generator(train=train, bounded=True)
        (z, _), variables = networks.apply(variables, "encoder", encoder, images, train=train)
        reconstruction, variables = networks.apply(variables, "decoder", decoder, z, train=train)
        (z_hat, _), variables = networks.apply(
            variables, "second_encoder", encoder, reconstruction, train=train
        )
        return _Passed(z, reconstruction, z_hat), variables

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """See the module; the keys are not used."""
        x = batch["image"]
        passed, variables = self._passed(variables, x, train=train)
        judge, name = self._discriminator(train=train), "discriminator"
        (of_real, features), variables = networks.apply(variables, name, judge, x, train=train)
        (of_fake, reconstructed), variables = networks.apply(
            variables, name, judge, passed.reconstruction, train=train
        )
        terms = {
            "generator/adversarial": jnp.mean((features - reconstructed) ** 2, axis=(1, 2, 3)),
            "generator/contextual": jnp.mean(jnp.abs(x - passed.reconstruction), axis=(1, 2, 3)),
            "generator/encoding": jnp.mean((passed.z - passed.z_hat) ** 2, axis=1),
            "discriminator/real": _cross_entropy(of_real, 1.0),
            "discriminator/reconstructed": _cross_entropy(of_fake, 0.0),
        }
        generator = (
            self.adversarial * terms["generator/adversarial"]
            + self.contextual * terms["generator/contextual"]
            + self.encoding * terms["generator/encoding"]
        )
        discriminator_loss = terms["discriminator/real"] + terms["discriminator/reconstructed"]
        losses = {"generator": generator, "discriminator": 0.5 * discriminator_loss}
        return losses, LossAux(terms, networks.state_of(variables))

    def score(self, variables: Variables, images: Images) -> Scores:
        """A(x); the map is the squared error, averaged over channels."""
        passed, _ = self._passed(variables, images, train=False)
        pixel = jnp.mean((images - passed.reconstruction) ** 2, axis=-1)
        distance = jnp.mean(jnp.abs(passed.z - passed.z_hat), axis=1)
        return Scores(
            image=distance,
            pixel=pixel,
            components={"code_distance": distance, "mse": jnp.mean(pixel, axis=(1, 2))},
            reconstructions={"reconstruction": passed.reconstruction},
        )


def _cross_entropy(verdict: Vectors, label: float) -> PerExample:
    return optax.sigmoid_binary_cross_entropy(verdict[:, 0], jnp.full(len(verdict), label))
