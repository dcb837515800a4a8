"""FastFlow: a two-dimensional flow on the features of each level of a frozen encoder.

Yu et al. 2021, "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing
Flows". The features of each level are normalised by a layer norm, and a flow with convolutional
subnets maps them to z':

    L   = - log p(z') - log |det dz'/dz|, of all levels, per dimension
    map = - log mean over levels of exp l,  l = mean over channels of log N(z'; 0, I), upsampled
    S   = maximum of the map

The paper's map is that mean itself, negative: a density, which underflows to 0 far from the normal
images, where all anomalies then score alike. Its logarithm does not underflow. The log density is
what is upsampled (linearly), so that the two differ between the positions of a level.

The layer norm, without which the flow does not train, has no parameters: a trained scale before
the flow would raise the likelihood without bound by shrinking the features to a point. A fitted
whitening (`flow_levels`) replaces it: it keeps the size of the features, which reveals anomalies.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxad.models.flow_levels import FlowLevels, top_tenth
from jaxad.nn import networks
from jaxad.nn.fields import OneOf
from jaxad.nn.flow import FlowSettings, likelihood_terms, standard_normal_log_density
from jaxad.types import Batch, ExampleKeys, Images, LossAux, PerExample, Scores, Variables

#: Image score -> the component that it is.
_COMPONENTS = {"max": "map_max", "mean": "map_mean", "top_tenth": "top_tenth"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastFlow(FlowLevels):
    """FastFlow as a `jaxad.types.TrainedModel` and `jaxad.types.PretrainedModel`.

    Attributes:
        num_blocks: blocks in each level's flow.
        subnet: kind of subnet; see `jaxad.nn.flow.FlowSettings`.
        image_score: `max` or `mean` of the map, or `top_tenth`
            (`jaxad.models.flow_levels.top_tenth`).
    """

    networks: ClassVar[Mapping[str, str]] = networks.ONE_LOSS

    num_blocks: int
    subnet: str
    image_score: Annotated[str, OneOf(tuple(_COMPONENTS))]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settings  # noqa: B018 - checks its fields

    @property
    def _settings(self) -> FlowSettings:
        return FlowSettings(num_blocks=self.num_blocks, subnet=self.subnet)

    @property
    def score_weights(self) -> Mapping[str, float]:
        """The component that is the score."""
        return {_COMPONENTS[self.image_score]: 1.0}

    @property
    def decay_factors(self) -> Mapping[str, float]:
        """Scales the weight decay as the loss; see `jaxad.types.TrainedModel`."""
        return {".*": 1 / self.num_latents}

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh flows; the encoder's variables are NaN until they are read."""
        return {**networks.join(self._init_flows(key)), "encoder": self._encoder.unread_variables}

    @property
    def _normalisation(self) -> Literal["deviation", "layer norm"]:
        return "layer norm" if self.whitening == "none" else "deviation"

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[dict[str, PerExample], LossAux]:
        """Returns the negative log-likelihood per dimension; `keys` are not used."""
        z = self._batch_features(variables, batch)
        transformed, variables = self._transform(variables, z, train=train)
        terms = likelihood_terms(transformed)
        return {"model": terms["feature_nll"]}, LossAux(terms, networks.state_of(variables))

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by `image_score`; it and the map are in nats per channel."""
        features = self.features(variables, images)
        transformed, _ = self._transform(variables, features, train=False)
        shape = (images.shape[0], *self.image_shape[:2])
        levels = [
            jax.image.resize(
                standard_normal_log_density(z_prime) / z_prime.shape[-1], shape, method="linear"
            )
            for z_prime, _ in transformed
        ]
        pixel = math.log(len(levels)) - jax.nn.logsumexp(jnp.stack(levels), axis=0)
        parts = {
            "map_max": pixel.max(axis=(1, 2)),
            "map_mean": pixel.mean(axis=(1, 2)),
            "top_tenth": top_tenth(transformed),
        }
        return Scores(
            image=parts[_COMPONENTS[self.image_score]],
            pixel=pixel,
            components={**likelihood_terms(transformed), **parts},
            reconstructions={},
        )
