"""PaDiM: a Gaussian of the encoder's features at every position of the image.

Defard et al. 2021, "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization". The frozen encoder's features of several strides are concatenated at the resolution
of the finest one (each position of a coarser level stands for the positions that it covers) and
reduced to a fixed random choice of channels x. Over the training images, at each position:

    mu, Sigma = mean of x, covariance of x + 0.01 I                                     (Eq. 1)
    M         = sqrt((x - mu)^T Sigma^-1 (x - mu))                                      (Eq. 2)
    map       = M, upsampled, smoothed with a Gaussian of 4 pixels
    score     = max over positions of M
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxad.errors import UserError
from jaxad.models.place_gaussians import PlaceGaussians
from jaxad.models.pretrained import Flat, PyramidSystem
from jaxad.nn.fields import Interval
from jaxad.types import Batch, Images, Scores, Variables

Vectors = Float[Array, "batch places channels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaDiM(PyramidSystem):
    """PaDiM as a `jaxad.types.FittedModel` and `jaxad.types.PretrainedModel`.

    Attributes:
        num_channels: channels in the random choice, at most those of all levels together. Memory
            and file size grow with its square times the number of positions.
    """

    score_weights: ClassVar[Mapping[str, float]] = {"distance": 1.0}

    num_channels: Annotated[int, Interval("[1, inf)")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_channels > self._total_channels:
            raise UserError(
                f"config.model.num_channels: {self.num_channels} is more than the "
                f"{self._total_channels} channels of config.model.strides; choose a smaller number."
            )

    @property
    def num_latents(self) -> int:
        """The number of values in all feature vectors of an image."""
        return self._num_places * self.num_channels

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns standard normals and a random choice of channels; the encoder is NaN."""
        identity = jnp.eye(self.num_channels)
        order = jax.random.permutation(key, self._total_channels)
        return {
            "params": {
                "mean": jnp.zeros((self._num_places, self.num_channels)),
                "whitening": jnp.tile(identity, (self._num_places, 1, 1)),
            },
            "channels": {"chosen": order[: self.num_channels].astype(jnp.int32)},
            "encoder": self._encoder.unread_variables,
        }

    @functools.partial(jax.jit, static_argnums=0)  # compiled once for equal systems
    def vectors(self, features: Flat, chosen: Int[Array, " channels"]) -> Vectors:
        """Returns the chosen channels at every position, row by row."""
        joined = self._join(self._levels(features.astype(jnp.float32)), "nearest")
        kept = jnp.take(joined, chosen, axis=-1, mode="clip")
        return kept.reshape(features.shape[0], self._num_places, self.num_channels)

    def fit(self, variables: Variables, batches: Iterable[Batch], key: Key[Array, ""]) -> Variables:
        """Estimates the Gaussians in one pass, in float64; `key` is not used."""
        chosen = variables["channels"]["chosen"]
        moments = PlaceGaussians(self._num_places, self.num_channels)
        for batch in batches:
            vectors = np.asarray(self.vectors(batch["features"], chosen))
            moments.add(vectors[np.asarray(batch["_valid"])])
        mean, whitening = moments.whiten()
        return {**variables, "params": {"mean": mean, "whitening": whitening}}

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by their largest Mahalanobis distance."""
        params, chosen = variables["params"], variables["channels"]["chosen"]
        centred = self.vectors(self.features(variables, images), chosen) - params["mean"][None]
        # With Sigma = L L^T, M is the length of L^-1 (x - mu).
        whitened = jnp.einsum("pij,bpj->bpi", params["whitening"], centred, precision="highest")
        distances = jnp.sqrt(jnp.sum(whitened**2, axis=-1))
        parts = {"distance": jnp.max(distances, axis=1), "mean_distance": distances.mean(axis=1)}
        return Scores(
            image=parts["distance"],
            pixel=self._draw_map(distances),
            components=parts,
            reconstructions={},
        )
