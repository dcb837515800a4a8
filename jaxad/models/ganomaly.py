"""GANomaly: encoder, decoder and a second encoder, against a discriminator.

Akcay, Atapour-Abarghouei and Breckon 2018, "GANomaly: Semi-Supervised Anomaly Detection via
Adversarial Training" (ACCV). Of an image x and the discriminator's features f:

    z = G_E(x),  x^ = G_D(z),  z^ = E(x^)
    generator       w_adv mean (f(x) - f(x^))^2 + w_con mean |x - x^| + w_enc mean (z - z^)^2
                                                                                    (Eq. 1 to 4)
    discriminator   cross-entropy of real and reconstructed images
    score           A(x) = |z - z^|_1, here a mean over dimensions                  (Eq. 5);
                    its authors' code has mean (z - z^)^2

The paper then scales A to [0, 1] over the test set, which would make a score depend on other
images and changes no ranking.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxad.nn import networks
from jaxad.nn.autoencoder import Encoder, LatentSystem, Vectors
from jaxad.nn.fields import Interval, OneOf
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """Outputs of the generator: z, x^ and z^."""

    z: Vectors
    reconstruction: Images
    z_hat: Vectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANomaly(LatentSystem):
    """GANomaly as a `jaxad.types.TrainedModel`.

    Attributes:
        adversarial: w_adv.
        contextual: w_con.
        encoding: w_enc.
        code_distance: A(x), `absolute` as in the paper or `squared` as in its authors' code.
    """

    #: Encoder, decoder and second encoder are one network, the generator.
    networks: ClassVar[Mapping[str, str]] = {
        "generator": "(encoder|decoder|second_encoder)/.*",
        "discriminator": "discriminator/.*",
    }
    score_weights: ClassVar[Mapping[str, float]] = {"code_distance": 1.0}

    adversarial: Annotated[float, Interval("[0, inf)")]
    contextual: Annotated[float, Interval("[0, inf)")]
    encoding: Annotated[float, Interval("[0, inf)")]
    code_distance: Annotated[str, OneOf(("absolute", "squared"))]

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh variables of the four networks."""
        keys = jax.random.split(key, 4)
        images, z = self.example_inputs()
        encoder = self.encoder(train=False)
        return networks.join(
            {
                "encoder": encoder.init(keys[0], images),
                "decoder": self.generator(train=False, bounded=True).init(keys[1], z),
                "second_encoder": encoder.init(keys[2], images),
                "discriminator": self._discriminator(train=False).init(keys[3], images),
            }
        )

    def _discriminator(self, *, train: bool) -> Encoder:
        return self.encoder(train=train, latents=1)

    def _generate(
        self, variables: Variables, images: Images, *, train: bool
    ) -> tuple[_Outputs, Variables]:
        """Runs images through the generator; also returns updated variables."""
        encoder, decoder = self.encoder(train=train), self.generator(train=train, bounded=True)
        (z, _), variables = networks.apply(variables, "encoder", encoder, images, train=train)
        reconstruction, variables = networks.apply(variables, "decoder", decoder, z, train=train)
        (z_hat, _), variables = networks.apply(
            variables, "second_encoder", encoder, reconstruction, train=train
        )
        return _Outputs(z, reconstruction, z_hat), variables

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns the losses of both networks; `keys` are not used."""
        x = batch["image"]
        outputs, variables = self._generate(variables, x, train=train)
        judge, name = self._discriminator(train=train), "discriminator"
        (of_real, features), variables = networks.apply(variables, name, judge, x, train=train)
        (of_fake, reconstructed), variables = networks.apply(
            variables, name, judge, outputs.reconstruction, train=train
        )
        terms = {
            "generator/adversarial": jnp.mean((features - reconstructed) ** 2, axis=(1, 2, 3)),
            "generator/contextual": jnp.mean(jnp.abs(x - outputs.reconstruction), axis=(1, 2, 3)),
            "generator/encoding": jnp.mean((outputs.z - outputs.z_hat) ** 2, axis=1),
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
        """Scores images by A(x); the map is the squared error, averaged over channels."""
        outputs, _ = self._generate(variables, images, train=False)
        pixel = jnp.mean((images - outputs.reconstruction) ** 2, axis=-1)
        difference = outputs.z - outputs.z_hat
        is_squared = self.code_distance == "squared"
        distance = jnp.mean(difference**2 if is_squared else jnp.abs(difference), axis=1)
        return Scores(
            image=distance,
            pixel=pixel,
            components={"code_distance": distance, "mse": jnp.mean(pixel, axis=(1, 2))},
            reconstructions={"reconstruction": outputs.reconstruction},
        )


def _cross_entropy(verdict: Vectors, label: float) -> PerExample:
    return optax.sigmoid_binary_cross_entropy(verdict[:, 0], jnp.full(len(verdict), label))
