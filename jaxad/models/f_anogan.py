"""f-AnoGAN: a Wasserstein GAN of normal images, then an encoder into its latent space.

Schlegl et al. 2019, "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial
networks" (Medical Image Analysis 54); its GAN is that of Gulrajani et al. 2017, "Improved Training
of Wasserstein GANs". Of an image x, noise z ~ N(0, I) and the critic's features f:

    critic      D(G(z)) - D(x) + lambda (|grad D(x~)| - 1)^2,  x~ = e x + (1 - e) G(z), e ~ U(0, 1)
    generator   -D(G(z))
    encoder     L_izif = mean (x - G(E(x)))^2 + kappa mean (f(x) - f(G(E(x))))^2
    score       A(x) = L_izif                                                       (its Eq. 5)

The critic and the generator alternate; then both stay fixed while the encoder trains
(`config.train.updates`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxad.nn import blocks, networks
from jaxad.nn.autoencoder import Encoder, FeatureMap, LatentSystem, Vectors
from jaxad.nn.fields import Interval, OneOf
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

#: Added under the root of the slope's square, whose derivative at 0 is infinite.
_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAnoGAN(LatentSystem):
    """f-AnoGAN as a `jaxad.types.TrainedModel`.

    `norm` applies to the generator and the encoder.

    Attributes:
        critic_norm: kind of normalisation in the critic; not batch norm, because its gradient
            penalty is computed for each image on its own.
        bounded_code: whether a tanh keeps the encoder's output in (-1, 1), as in its authors' code.
        gradient_penalty: lambda, the weight of the critic's gradient penalty.
        kappa: weight of the critic's features in the encoder's loss and in the score.
    """

    #: The encoder comes first: its loss is the score.
    networks: ClassVar[Mapping[str, str]] = {
        name: f"{name}/.*" for name in ("encoder", "generator", "critic")
    }

    critic_norm: Annotated[str, OneOf(blocks.PER_EXAMPLE_NORMS)]
    bounded_code: bool
    gradient_penalty: Annotated[float, Interval("[0, inf)")]
    kappa: Annotated[float, Interval("[0, inf)")]

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the two parts of A(x)."""
        return {"mse": 1.0, "feature_distance": self.kappa}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh variables of the three networks."""
        encoder_key, generator_key, critic_key = jax.random.split(key, 3)
        images, z = self.example_inputs()
        variables = {
            "encoder": self.encoder(train=False).init(encoder_key, images),
            "generator": self.generator(train=False, bounded=True).init(generator_key, z),
            "critic": self._critic.init(critic_key, images),
        }
        return networks.join(variables)

    @property
    def _critic(self) -> Encoder:
        return self.encoder(train=False, latents=1, norm=self.critic_norm)

    def _encode(
        self, variables: Variables, images: Images, *, train: bool
    ) -> tuple[Vectors, Variables]:
        module = self.encoder(train=train)
        (code, _), variables = networks.apply(variables, "encoder", module, images, train=train)
        return jnp.tanh(code) if self.bounded_code else code, variables

    def _judge(self, variables: Variables, images: Images) -> tuple[PerExample, FeatureMap]:
        """Returns D(x) and the features that it is computed from."""
        (verdict, features), _ = networks.apply(variables, "critic", self._critic, images)
        return verdict[:, 0], features

    def _generate(
        self, variables: Variables, z: Vectors, *, train: bool
    ) -> tuple[Images, Variables]:
        module = self.generator(train=train, bounded=True)
        return networks.apply(variables, "generator", module, z, train=train)

    def _distances(
        self, variables: Variables, images: Images, reconstruction: Images
    ) -> dict[str, PerExample]:
        """Returns the two parts of L_izif."""
        features, reconstructed = (self._judge(variables, x)[1] for x in (images, reconstruction))
        return {
            "mse": jnp.mean((images - reconstruction) ** 2, axis=(1, 2, 3)),
            "feature_distance": jnp.mean((features - reconstructed) ** 2, axis=(1, 2, 3)),
        }

    def _slope(self, variables: Variables, images: Images) -> Float[Array, " batch"]:
        """Returns |grad D| at each image; the critic sees each image alone."""
        gradient = jax.grad(lambda x: jnp.sum(self._judge(variables, x)[0]))(images)
        return jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2, 3)) + _EPSILON)

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns the loss of each network; gradients are taken of each with respect to its own."""
        x = batch["image"]
        pairs = jax.vmap(jax.random.split)(keys)
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latents,), x.dtype))(pairs[:, 0])
        mix = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1), x.dtype))(pairs[:, 1])

        fake, of_generator = self._generate(variables, z, train=train)
        of_fake, of_real = (self._judge(variables, images)[0] for images in (fake, x))
        slope = self._slope(variables, mix * x + (1 - mix) * jax.lax.stop_gradient(fake))
        penalty = (slope - 1) ** 2

        code, of_encoder = self._encode(variables, x, train=train)
        reconstruction, _ = self._generate(variables, code, train=False)
        distances = self._distances(variables, x, reconstruction)
        losses = {
            "encoder": distances["mse"] + self.kappa * distances["feature_distance"],
            "generator": -of_fake,
            "critic": of_fake - of_real + self.gradient_penalty * penalty,
        }
        terms = {
            **{f"encoder/{name}": value for name, value in distances.items()},
            "critic/wasserstein": of_real - of_fake,
            "critic/gradient_penalty": penalty,
        }
        # Both passes update statistics; those of the encoder come from its own pass.
        mutable = {
            name: {**tree, "encoder": of_encoder[name]["encoder"]}
            for name, tree in networks.state_of(of_generator).items()
        }
        return losses, LossAux(terms, mutable)

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by A(x); the map is the squared error, averaged over channels."""
        code, _ = self._encode(variables, images, train=False)
        reconstruction, _ = self._generate(variables, code, train=False)
        distances = self._distances(variables, images, reconstruction)
        return Scores(
            image=distances["mse"] + self.kappa * distances["feature_distance"],
            pixel=jnp.mean((images - reconstruction) ** 2, axis=-1),
            components=distances,
            reconstructions={"reconstruction": reconstruction},
        )
