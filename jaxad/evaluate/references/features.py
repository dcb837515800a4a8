"""Reference scores on the features of a frozen encoder: fitted in seconds, without gradients.

Every system has to be compared with them, the ones on the same encoder in particular. f are the
features of an image at the encoder's coarsest stride, of the places p; all statistics are those of
the training images:

    feature_pca_64      mean squared residual of f after a projection onto 64 principal components
    feature_gaussian    mean over p of (f_p - mu_p)^T Sigma_p^-1 (f_p - mu_p), the square of PaDiM's
                        distance (Defard et al. 2021, Eq. 2); Sigma_p is the covariance + .01 v I,
                        v the mean variance over places and channels
    feature_neighbours  mean distance of mean_p f from those of the 5 nearest training images
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import sklearn.neighbors
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from jaxad.config.model import image_shape
from jaxad.data.pipeline.batching import eval_batches
from jaxad.data.sources import DataSet
from jaxad.errors import UserError, first_line
from jaxad.evaluate.references.pixels import PCA_COMPONENTS, evenly_spaced, pca_residual
from jaxad.models.pretrained import PretrainedSystem
from jaxad.nn import ops
from jaxad.nn.backbones import ARCHITECTURES, Backbone
from jaxad.nn.backbones.weights import HUB
from jaxad.runtime import processes
from jaxad.runtime.parallel import make_parallel
from jaxad.train.feature_cache import Encoder, cached_features
from jaxad.types import Images, Split, Variables

logger = logging.getLogger(__name__)

Features = Float[np.ndarray, "n rows columns channels"]
FeatureMap = Float[Array, "batch rows columns features"]
Scalars = Float[np.ndarray, " n"]
Score = Callable[[Features], Scalars]

_NEIGHBOURS = 5
#: Added to the diagonals of covariances, in units of the mean variance of all features.
_RIDGE = 0.01
#: Images below this size are enlarged for the encoder, so that there are several places.
_LEAST_SIZE = 64
#: Images that are scored at once.
_BATCH = 256
#: Encoder of references for systems that have none; its weights are installed with jaxad.
_DEFAULT_BACKBONE = "efficientnet_lite0"


class Undefined(Exception):
    """The reason why a reference score is not defined."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceEncoder(PretrainedSystem):
    """The encoder of the reference scores, as a `jaxad.types.FeatureExtractor`."""

    @property
    def _encoder(self) -> Backbone:
        return Backbone(self.backbone, stride=_coarsest_stride(self.backbone), dtype=self.dtype)

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width that the encoder sees: multiples of its stride."""
        stride = self._encoder.stride
        height, width, _ = self.image_shape
        return _round_up(height, stride), _round_up(width, stride)

    def features(self, variables: Variables, images: Images) -> FeatureMap:
        """Returns the features of the coarsest stride, float32."""
        shape = (images.shape[0], *self._size, images.shape[-1])
        if shape != images.shape:
            images = jax.image.resize(images, shape, "linear")
        with jax.default_matmul_precision("highest"):
            return ops.full_precision(self._encoder.features(variables["encoder"], images))


def _coarsest_stride(backbone: str) -> int:
    return max(Backbone(backbone).strides)


def _round_up(size: int, stride: int) -> int:
    return -(-max(size, _LEAST_SIZE) // stride) * stride


def reference_encoder(config: ConfigDict) -> ReferenceEncoder:
    """Returns the encoder of a run's references: the system's own, or the default one.

    Raises:
        Undefined: no encoder takes the images.
    """
    shape = image_shape(config)
    if shape[-1] not in (1, 3):
        raise Undefined(f"images have {shape[-1]} channels; the encoder takes 1 or 3")
    backbone, weights = encoder_source(config)
    return ReferenceEncoder(image_shape=shape, backbone=backbone, weights=weights)


def encoder_source(config: ConfigDict) -> tuple[str, str]:
    """Returns backbone and weights of the system's encoder, or of the default one."""
    backbone, weights = config.model.get("backbone"), config.model.get("weights")
    # A model of another package may mean something else by these names.
    is_own = backbone in ARCHITECTURES and isinstance(weights, str)
    return (backbone, weights) if is_own else (_DEFAULT_BACKBONE, "")


def encoder_title(config: ConfigDict) -> str:
    """Returns encoder, weights and stride of a run's references on features; "" without them.

    Weights are `hub:...` or the name of their file: folders may name people.
    """
    if not config.evaluate.feature_references:
        return ""
    backbone, weights = encoder_source(config)
    file = weights if weights.startswith(HUB) else Path(weights).name
    named = f", weights {file}" if file else ""
    return f"{backbone}{named}, stride {_coarsest_stride(backbone)}"


def _pca(train: Features) -> Score:
    return pca_residual(train, min(PCA_COMPONENTS, len(train) - 1, train[0].size))


def _gaussian(train: Features) -> Score:
    places = _by_place(train)
    means = places.mean(axis=1)
    ridge = _RIDGE * float(train.var(axis=0).mean())
    inverses = np.empty((len(places), train.shape[-1], train.shape[-1]), np.float32)
    for number, (place, mean) in enumerate(zip(places, means, strict=True)):
        covariance = (place - mean).T @ (place - mean) / len(place)
        inverses[number] = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))

    def distance(features: Features) -> Scalars:
        total = np.zeros(len(features), np.float32)
        for place, mean, inverse in zip(_by_place(features), means, inverses, strict=True):
            total += ((place - mean) @ inverse * (place - mean)).sum(axis=1)
        return total / len(means)

    return distance


def _by_place(features: Features) -> Float[np.ndarray, "places n channels"]:
    return features.reshape(len(features), -1, features.shape[-1]).swapaxes(0, 1)


def _neighbours(train: Features) -> Score:
    index = sklearn.neighbors.NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(train)))
    index.fit(train.mean(axis=(1, 2)))
    return lambda features: index.kneighbors(features.mean(axis=(1, 2)))[0].mean(axis=1)


#: Name of each score -> the function that fits it to training features.
FEATURE_SCORES: Mapping[str, Callable[[Features], Score]] = {
    f"feature_pca_{PCA_COMPONENTS}": _pca,
    "feature_gaussian": _gaussian,
    "feature_neighbours": _neighbours,
}


def fit_feature_scores(train: Features) -> tuple[dict[str, Score], dict[str, str]]:
    """Fits the reference scores to the features of training images.

    Returns:
        The scores by name, functions of features [N, h, w, C] to [N], higher = more anomalous; and
        for those that are undefined, the reason.
    """
    scores, reasons = {}, {}
    for name, fit in FEATURE_SCORES.items():
        try:
            if len(train) < 2:
                raise Undefined("it takes at least 2 training images")
            if (train == train[0]).all():
                raise Undefined("the features of all training images are equal")
            scores[name] = fit(train)
        except Undefined as error:
            reasons[name] = str(error)
    return scores, reasons


class FeatureScores:
    """The reference scores of a data set's splits on one encoder, computed on first use.

    Attributes:
        reasons: for every score that is undefined, why.
    """

    def __init__(self, data_set: DataSet, config: ConfigDict):
        self._data_set, self._config = data_set, config
        self._scores: dict[str, Mapping[str, Scalars]] = {}
        self._fitted: dict[str, Score] | None = None
        self.reasons: Mapping[str, str] = {}

    def of(self, split: str) -> Mapping[str, Scalars]:
        """Returns the scores of a split's images by name, each [N]."""
        if self._fitted is None:
            reason = self._problem()
            if reason:
                self._fitted, self.reasons = {}, dict.fromkeys(FEATURE_SCORES, reason)
            else:
                self._fitted, self.reasons = fit_feature_scores(self._training_features())
            if self.reasons:
                logger.warning(f"reference scores: {', '.join(self.reasons)} undefined: "
                               f"{next(iter(self.reasons.values()))}")  # fmt: skip
        if not self._fitted:
            return {}
        if split not in self._scores:
            parts: dict[str, list[Scalars]] = {name: [] for name in self._fitted}
            for features in self._batches(split, self._data_set.split(split)):
                for name, score in self._fitted.items():
                    parts[name].append(score(features))
            self._scores[split] = {name: np.concatenate(part) for name, part in parts.items()}
        return self._scores[split]

    def _problem(self) -> str:
        """Returns why one of the processes has no encoder; "" if all have it."""
        try:
            self._model  # noqa: B018 - reads the weights
            reason = ""
        except (Undefined, UserError) as error:
            reason = first_line(error)
        if all(processes.of_all(not reason)):
            return ""
        return reason or "another process has no encoder"

    def _training_features(self) -> Features:
        """Returns the features of the training images, or of as many as fit, evenly spaced."""
        encoder, variables = self._model
        image = jax.ShapeDtypeStruct((1, *encoder.image_shape), np.float32)
        shape = jax.eval_shape(encoder.features, variables, image).shape
        split = evenly_spaced(self._data_set.split("train"), shape)
        return np.concatenate(list(self._batches("train", split)))

    @functools.cached_property
    def _model(self) -> tuple[ReferenceEncoder, Variables]:
        encoder = reference_encoder(self._config)
        return encoder, encoder.pretrained_variables(jax.random.key(self._config.seed))

    def _batches(self, name: str, split: Split) -> Iterator[Features]:
        """Yields the features of a split, float32, from the cache where they can be cached."""
        encoder, variables = self._model
        parallel = make_parallel(self._config.parallel)
        cached = cached_features(
            self._config, encoder, parallel, [variables], {name: split}, images_change=False
        )
        if name in cached:
            for start in range(0, len(split), _BATCH):
                yield cached[name][start : start + _BATCH].astype(np.float32)
            return
        local = parallel.local()
        batches = eval_batches(split.images, {}, batch_size=local.round_up(_BATCH))
        left = len(split)
        for features in Encoder(encoder, variables, local).features(batches):
            yield np.asarray(features[:left], np.float32)
            left -= len(features)
