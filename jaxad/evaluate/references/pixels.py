"""Reference scores of pixels.

A score below chance means that anomalies lower it. They are fitted to all training images, or, of
more than `MOST_NUMBERS` values, to as many images as fit, evenly spaced over the split.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
import sklearn.decomposition
from jaxtyping import Float

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.types import Split

Images = Float[np.ndarray, "n height width channels"]
Scalars = Float[np.ndarray, " n"]

PCA_COMPONENTS = 64
#: The strongest of them.
LINEAR_BASELINE = f"pca_{PCA_COMPONENTS}"
#: A Gaussian for each pixel.
PIXEL_STATISTICS = "pixel_gaussian"
#: Values of images or features that are in memory at once, at most: 1 GB.
MOST_NUMBERS = 250_000_000
#: Floor of a pixel's standard deviation: background pixels do not vary.
_LEAST_DEVIATION = 1e-2


def _mean(images: Images) -> Scalars:
    return images.mean(axis=(1, 2, 3))


def _standard_deviation(images: Images) -> Scalars:
    return images.std(axis=(1, 2, 3))


def _area(images: Images) -> Scalars:
    """Returns the share of foreground pixels."""
    return (images > 0).any(axis=-1).mean(axis=(1, 2)).astype(images.dtype)


def _total_variation(images: Images) -> Scalars:
    """Returns the mean absolute difference of neighbouring pixels, summed over both directions."""
    down = np.abs(np.diff(images, axis=1)).mean(axis=(1, 2, 3))
    across = np.abs(np.diff(images, axis=2)).mean(axis=(1, 2, 3))
    return down + across


def _pixel_gaussian(train: Images) -> Callable[[Images], Scalars]:
    """Returns the mean squared z-score, by each pixel's mean and deviation in training."""
    center = train.mean(axis=0)
    spread = np.maximum(train.std(axis=0), _LEAST_DEVIATION)
    return lambda images: (((images - center) / spread) ** 2).mean(axis=(1, 2, 3))


def pca_residual(train: Images, components: int) -> Callable[[Images], Scalars]:
    """Returns the mean squared residual of a projection onto the leading principal components."""
    flat = train.reshape(len(train), -1)
    model = sklearn.decomposition.PCA(components, svd_solver="randomized", random_state=0)
    model.fit(flat)

    def residual(images: Images) -> Scalars:
        rows = images.reshape(len(images), -1)
        return ((rows - model.inverse_transform(model.transform(rows))) ** 2).mean(axis=1)

    return residual


def fit_pixel_scores(train: Images) -> dict[str, Callable[[Images], Scalars]]:
    """Returns the scores by name: functions of images [N, H, W, C] in [0, 1] to [N]."""
    return {
        "mean": _mean,
        "standard_deviation": _standard_deviation,
        "area": _area,
        "total_variation": _total_variation,
        PIXEL_STATISTICS: _pixel_gaussian(train),
        LINEAR_BASELINE: pca_residual(train, min(PCA_COMPONENTS, len(train), train[0].size)),
    }


def _most_images(shape: tuple[int, ...]) -> int:
    """Returns how many images of the shape [N, ...] may be in memory at once."""
    return max(2, MOST_NUMBERS // int(np.prod(shape[1:])))


def evenly_spaced(split: Split, shape: tuple[int, ...] = ()) -> Split:
    """Returns a split, or as many of its images as may be in memory at once, evenly spaced.

    `shape` is that of the array [N, ...] to hold, by default that of the images.
    """
    most = _most_images(shape or split.images.shape)
    if most >= len(split):
        return split
    return split.rows(np.linspace(0, len(split) - 1, most).astype(int))


class PixelScores:
    """The scores of a data set's splits, computed on first use."""

    def __init__(self, data_set: DataSet):
        self._data_set = data_set
        self._scores: dict[str, Mapping[str, Scalars]] = {}

    @functools.cached_property
    def _fitted(self) -> dict[str, Callable[[Images], Scalars]]:
        images = evenly_spaced(self._data_set.split("train")).images
        return fit_pixel_scores(to_unit_interval(images[:]))

    def of(self, split: str) -> Mapping[str, Scalars]:
        """Returns the scores of a split's images by name, each [N]."""
        if split not in self._scores:
            images = self._data_set.split(split).images
            count = _most_images(images.shape)
            parts: dict[str, list[Scalars]] = {name: [] for name in self._fitted}
            for start in range(0, len(images), count):
                part = to_unit_interval(images[start : start + count])
                for name, score in self._fitted.items():
                    parts[name].append(score(part))
            self._scores[split] = {name: np.concatenate(part) for name, part in parts.items()}
        return self._scores[split]
