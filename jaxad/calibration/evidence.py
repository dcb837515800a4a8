"""Explains why an image is called anomalous: what drove its score, compared with normal images.

Every system's score is a weighted sum of components (`jaxad.types.Model.score_weights`: the
negative ELBO is nll + kl_high + kl_low, AE-FLOW's score Eq. 2). The contribution of a component is
its weight times its distance above its mean over normal patients; the contributions of an image add
up to the distance of its score above the mean score of normal patients.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

Scalars = Float[np.ndarray, " n"]


def contributions(
    components: Mapping[str, Scalars], weights: Mapping[str, float], means: Mapping[str, float]
) -> dict[str, Scalars]:
    """Returns how much each component adds to the score beyond its value for normal patients.

    Args:
        components: of the images to explain, each [N].
        weights: `Detector.score_weights`.
        means: `CalibrationSet.component_means`.

    Returns:
        By component [N], in units of the score.
    """
    return {
        name: weight * (np.asarray(components[name], np.float64) - means[name])
        for name, weight in weights.items()
    }


def drivers(contributions: Mapping[str, Scalars]) -> list[str]:
    """Returns for each image the component with the largest contribution."""
    names = list(contributions)
    return [names[place] for place in np.argmax(np.stack(list(contributions.values())), axis=0)]
