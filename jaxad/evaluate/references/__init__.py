"""Reference scores: what costs next to nothing, and what every system has to beat.

Of pixels (`pixels`) and of the features of a frozen encoder (`features`). All are fitted to the
training images; by convention, higher = more anomalous. In `metrics.json` they are under `trivial`.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxad.data.sources import DataSet
from jaxad.evaluate.references.features import (
    FeatureScores,
    encoder_source,
    encoder_title,
)
from jaxad.evaluate.references.pixels import LINEAR_BASELINE, PIXEL_STATISTICS, PixelScores
from jaxad.nn.backbones import RANDOM

__all__ = [
    "LINEAR_BASELINE", "PIXEL_STATISTICS", "TITLES", "ReferenceScores", "encoder_title",
]  # fmt: skip

Scalars = Float[np.ndarray, " n"]


#: Name of each reference score -> its title.
TITLES = {
    "mean": "Mean intensity",
    "standard_deviation": "Standard deviation",
    "area": "Area of the foreground",
    "total_variation": "Total variation",
    PIXEL_STATISTICS: "Gaussian at each pixel",
    LINEAR_BASELINE: "PCA of pixels, 64 components",
    "feature_pca_64": "PCA of features, 64 components",
    "feature_gaussian": "Gaussian at each place of the features",
    "feature_neighbours": "Nearest neighbours of mean features",
}


class ReferenceScores:
    """The reference scores of a data set's splits, computed on first use.

    Runs that are evaluated on the same data share one instance.
    """

    def __init__(self, data_set: DataSet):
        self._data_set = data_set
        self._pixels = PixelScores(data_set)
        self._features: dict[tuple[object, ...], FeatureScores] = {}

    def of(self, split: str, config: ConfigDict) -> Mapping[str, Scalars]:
        """Returns the reference scores of a split's images by name, each [N].

        Args:
            split: the name of the split.
            config: the config of a run, whose encoder the references use if it has one.
        """
        features = self._of_encoder(config).of(split) if _wanted(config) else {}
        return {**self._pixels.of(split), **features}

    def undefined(self, config: ConfigDict) -> Mapping[str, str]:
        """Returns for every undefined score the reason, once `of` was called."""
        return self._of_encoder(config).reasons if _wanted(config) else {}

    def _of_encoder(self, config: ConfigDict) -> FeatureScores:
        key: tuple[object, ...] = encoder_source(config)
        if RANDOM in key:
            key = (*key, config.seed)
        if key not in self._features:
            self._features[key] = FeatureScores(self._data_set, config)
        return self._features[key]


def _wanted(config: ConfigDict) -> bool:
    return bool(config.evaluate.feature_references)
