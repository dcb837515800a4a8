"""f-AnoGAN: a Wasserstein GAN of normal images, then an encoder into its latent space.

Schlegl et al. 2019, "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial
networks" (Medical Image Analysis 54); its GAN is that of Gulrajani et al. 2017, "Improved Training
of Wasserstein GANs". Of an image x, noise z ~ N(0, I) and the critic's features f:

    critic      D(G(z)) - D(x) + lambda (|grad D(x~)| - 1)^2,  x~ = e x + (1 - e) G(z), e ~ U(0, 1)
    generator   -D(G(z))
    encoder     L_izif = mean (x - G(E(x)))^2 + kappa mean (f(x) - f(G(E(x))))^2
    score       A(x) = L_izif                                                       (its Eq. 5)

The critic and the generator alternate, then both stand still and the encoder learns
(`config.train.updates`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.nn import networks
from jaxad.nn.autoencoder import FeatureMap, Layout, Vectors
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

#: Under the root of the slope's square, whose derivative at 0 is infinite.
_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True)
class FAnoGAN:
    """f-AnoGAN as a `jaxad.types.Model`.

    Attributes:
        image_shape: see `jaxad.nn.autoencoder.Layout`, as the next four.
        widths: of all three networks.
        depth: of all three.
        latents: of z.
        norm: of generator and encoder; the critic has none but `group`, since its penalty is of
            each image alone.
        gradient_penalty: lambda.
        kappa: weight of the critic's features in the encoder's loss and in the score.
        dtype: of the convolutions; parameters stay float32.
        axis_name: see `jaxad.types.Model`.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    depth: int
    latents: int
    norm: str
    gradient_penalty: float
    kappa: float
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self._layout  # noqa: B018 - checks its fields
        for name in ("gradient_penalty", "kappa"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"config.model.{name}: {getattr(self, name)} is negative.")

    @property
    def networks(self) -> Mapping[str, str]:
        """The encoder first: its loss is the score."""
        return {name: f"{name}/.*" for name in ("encoder", "generator", "critic")}

    @property
    def num_latents(self) -> int:
        """Dimensions of z."""
        return self.latents

    @property
    def score_weights(self) -> Mapping[str, float]:
        """Weights of the components that the score is the sum of; see `jaxad.types.Model`."""
        return {"mse": 1.0, "feature_distance": self.kappa}

    @property
    def _layout(self) -> Layout:
        return Layout(
            self.image_shape, self.widths, self.depth, self.latents, self.norm, self.dtype,
            self.axis_name,
        )  # fmt: skip

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables of the three networks."""
        encoder_key, generator_key, critic_key = jax.random.split(key, 3)
        images, z = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latents))
        layout = self._layout
        return networks.join(
            {
                "encoder": layout.encoder(train=False).init(encoder_key, images),
                "generator": layout.generator(train=False, bounded=True).init(generator_key, z),
                "critic": self._critic.init(critic_key, images),
            }
        )

    @property
    def _critic(self) -> Any:
        norm = "group" if self.norm == "group" else "none"
        return self._layout.encoder(train=False, latents=1, norm=norm)

    def _judge(self, variables: Variables, images: Images) -> tuple[PerExample, FeatureMap]:
        """D(x) and the features that it is computed from."""
        (verdict, features), _ = networks.apply(variables, "critic", self._critic, images)
        return verdict[:, 0], features

    def _generate(
        self, variables: Variables, z: Vectors, *, train: bool
    ) -> tuple[Images, Variables]:
        module = self._layout.generator(train=train, bounded=True)
        return networks.apply(variables, "generator", module, z, train=train)

    def _distances(
        self, variables: Variables, images: Images, reconstruction: Images
    ) -> dict[str, PerExample]:
        """The two parts of L_izif."""
        features, reconstructed = (
            self._judge(variables, one)[1] for one in (images, reconstruction)
        )
        return {
            "mse": jnp.mean((images - reconstruction) ** 2, axis=(1, 2, 3)),
            "feature_distance": jnp.mean((features - reconstructed) ** 2, axis=(1, 2, 3)),
        }

    def _slope(self, variables: Variables, images: Images) -> Float[Array, " batch"]:
        """|grad D| at each image; the critic looks at each alone."""
        gradient = jax.grad(lambda x: jnp.sum(self._judge(variables, x)[0]))(images)
        return jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2, 3)) + _EPSILON)

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """See the module; each network's loss, of which `train_step` takes its own gradient."""
        x = batch["image"]
        pairs = jax.vmap(jax.random.split)(keys)
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latents,), x.dtype))(pairs[:, 0])
        mix = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1), x.dtype))(pairs[:, 1])

        fake, of_generator = self._generate(variables, z, train=train)
        of_fake, of_real = (self._judge(variables, one)[0] for one in (fake, x))
        slope = self._slope(variables, mix * x + (1 - mix) * jax.lax.stop_gradient(fake))
        penalty = (slope - 1) ** 2

        (code, _), of_encoder = networks.apply(
            variables, "encoder", self._layout.encoder(train=train), x, train=train
        )
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
        # Both have moved statistics of their own; a train step takes each network's own.
        mutable = {
            name: {**tree, "encoder": of_encoder[name]["encoder"]}
            for name, tree in networks.state_of(of_generator).items()
        }
        return losses, LossAux(terms, mutable)

    def score(self, variables: Variables, images: Images) -> Scores:
        """A(x); the map is the squared error, averaged over channels."""
        (code, _), _ = networks.apply(
            variables, "encoder", self._layout.encoder(train=False), images
        )
        reconstruction, _ = self._generate(variables, code, train=False)
        distances = self._distances(variables, images, reconstruction)
        return Scores(
            image=distances["mse"] + self.kappa * distances["feature_distance"],
            pixel=jnp.mean((images - reconstruction) ** 2, axis=-1),
            components=distances,
            reconstructions={"reconstruction": reconstruction},
        )
