"""Why an image is called anomalous: what drove its score, against the known normal images.

Every system's score is a weighted sum of components (`jaxad.types.Model.score_weights`: the
negative ELBO is nll + kl_high + kl_low, AE-FLOW's score Eq. 2). A component's contribution is its
weight times how far it lies above its mean over normal patients; the contributions of an image add
up to how far its score lies above the mean score of normal patients.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

Scalars = Float[np.ndarray, " n"]

#: Of normal images, the share whose maps stay below what is shown brightest.
_SHOWN_BELOW = 0.95


@dataclasses.dataclass(frozen=True)
class NormalEvidence:
    """What normal images, those that decisions are calibrated on, look like to a detector.

    Attributes:
        components: of each image.
        pixel_maxima: the largest value of each image's anomaly map.
    """

    components: Mapping[str, Scalars]
    pixel_maxima: Scalars

    @property
    def brightest(self) -> float:
        """The value of a map that is shown brightest: 95 % of normal images stay below it."""
        return float(np.quantile(self.pixel_maxima, _SHOWN_BELOW))

    def means(self, groups: Int[np.ndarray, " n"]) -> dict[str, float]:
        """The mean of each component over patients, of whom each counts alike.

        Args:
            groups: the number of each image's patient, 0, 1, ....
        """
        weights = 1.0 / np.bincount(groups)[groups]
        return {
            name: float(np.average(values.astype(np.float64), weights=weights))
            for name, values in self.components.items()
        }


def contributions(
    components: Mapping[str, Scalars], weights: Mapping[str, float], means: Mapping[str, float]
) -> dict[str, Scalars]:
    """What each part of the score adds to it, beyond what it adds for normal patients.

    Args:
        components: of images to explain.
        weights: `Scorer.score_weights`.
        means: `NormalEvidence.means`.

    Returns:
        By component, in units of the score; their sum is the score minus the mean of normal ones.
    """
    return {
        name: weight * (np.asarray(components[name], np.float64) - means[name])
        for name, weight in weights.items()
    }


def drivers(found: Mapping[str, Scalars]) -> list[str]:
    """Of each image the component that adds most to its score."""
    names = list(found)
    return [names[place] for place in np.argmax(np.stack([found[name] for name in names]), axis=0)]
