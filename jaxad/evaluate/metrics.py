"""Metrics with 95 % intervals from a bootstrap over patients.

Slices of one patient are not independent, so whole patients (groups) are resampled. Metrics of
images are values of scikit-learn, those of pixels equal them (`curves.py`, which sorts the pixels
once); intervals are the percentile intervals of `scipy.stats.bootstrap`.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.stats
import sklearn.metrics
from jaxtyping import Bool, Float, Int, UInt8

from jaxad.evaluate import curves
from jaxad.runtime import interrupts
from jaxad.types import Groups

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]

#: Pixel scores are binned at this many quantiles for their intervals (not for their values).
_PIXEL_BINS = 2048


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % interval; NaN where it is undefined (a class is missing)."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """`{value, low, high}`, null for NaN."""
        return {
            name: float(value) if math.isfinite(value) else None
            for name, value in dataclasses.asdict(self).items()
        }


def group_interval(
    statistic: Callable[[Float[np.ndarray, "resamples groups"]], np.ndarray],
    num_groups: int,
    resamples: int,
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of how often each group was drawn.

    Args:
        statistic: [R, G] counts to [R] values; NaN where a draw leaves it undefined.
        num_groups: G; of fewer than two there is no interval (NaN).
        resamples: of the bootstrap.
    """

    def of_draws(draws: np.ndarray, axis: int) -> np.ndarray:
        del axis  # scipy puts the sample last
        interrupts.check()
        flat = draws.reshape(-1, draws.shape[-1])
        rows = np.repeat(np.arange(len(flat)), flat.shape[-1])
        counts = np.zeros((len(flat), num_groups))
        np.add.at(counts, (rows, flat.ravel()), 1.0)
        return statistic(counts).reshape(draws.shape[:-1])

    if num_groups < 2:
        return math.nan, math.nan
    # A resample can miss a class of a small split; the interval is over those that do not.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        distribution = scipy.stats.bootstrap(
            (np.arange(num_groups),),
            of_draws,
            n_resamples=resamples,
            batch=100,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    defined = distribution[np.isfinite(distribution)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


_CURVES = {
    "auroc": curves.auroc,
    "average_precision": curves.average_precision,
    "best_dice": curves.best_dice,
    "aupro": curves.partial_auroc,
}


def _point(name: str, labels: Labels, scores: Scalars) -> float:
    """The metric of all rows; NaN where a class is missing."""
    if labels.min() == labels.max():
        return math.nan
    if name == "auroc":
        return float(sklearn.metrics.roc_auc_score(labels, scores))
    return float(sklearn.metrics.average_precision_score(labels, scores))


def _group_table(
    columns: np.ndarray,
    groups: Groups,
    chosen: Bool[np.ndarray, " n"],
    shape: tuple[int, int],
    weights: Scalars | None = None,
) -> Any:
    """How many chosen rows (or their weight) of each group are in each column, sparse [G, C]."""
    values = np.ones(int(chosen.sum())) if weights is None else weights[chosen]
    return scipy.sparse.coo_array((values, (groups[chosen], columns[chosen])), shape=shape).tocsr()


def _tables(labels: Labels, columns: Groups, groups: Groups) -> tuple[Any, Any]:
    """Positive and negative rows of each group at each rank `columns` of the score."""
    shape = (int(groups.max()) + 1, int(columns.max()) + 1)
    positive = _group_table(columns, groups, labels == 1, shape)
    return positive, _group_table(columns, groups, labels == 0, shape)


def _interval(name: str, tables: tuple[Any, Any], resamples: int) -> tuple[float, float]:
    """Interval of a metric of scores whose ranks are in `tables`."""
    positive, negative = tables
    metric = _CURVES[name]
    return group_interval(
        lambda counts: metric(counts @ positive, counts @ negative), positive.shape[0], resamples
    )


def detection(
    name: str, labels: Labels, scores: Scalars, groups: Groups, resamples: int
) -> Estimate:
    """AUROC or average precision of image scores.

    Args:
        name: `auroc` or `average_precision`.
        labels: 1 = anomalous, [N].
        scores: higher = more anomalous, [N].
        groups: number of each row's patient, [N].
        resamples: of the bootstrap.
    """
    value = _point(name, labels, scores)
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan)
    columns = np.unique(scores, return_inverse=True)[1]
    return Estimate(value, *_interval(name, _tables(labels, columns, groups), resamples))


def weighted_detection(
    name: str,
    labels: Labels,
    scores: Scalars,
    groups: Groups,
    counts: Float[np.ndarray, "resamples groups"],
) -> Float[np.ndarray, " resamples"]:
    """AUROC or average precision with every patient counted so often; see `detection`."""
    columns = np.unique(scores, return_inverse=True)[1]
    shape = (counts.shape[1], int(columns.max()) + 1)
    positive, negative = (_group_table(columns, groups, labels == label, shape) for label in (1, 0))
    return _CURVES[name](counts @ positive, counts @ negative)


def mean(values: Scalars, groups: Groups, resamples: int) -> Estimate:
    """The mean over rows; NaN where there are none."""
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    groups = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups).astype(float)
    interval = group_interval(lambda drawn: (drawn @ sums) / (drawn @ counts), len(sums), resamples)
    return Estimate(float(np.mean(values)), *interval)


def pixel_metrics(
    masks: UInt8[np.ndarray, "n height width"],
    maps: Float[np.ndarray, "n height width"],
    groups: Groups,
    resamples: int,
) -> dict[str, Estimate]:
    """Pixel AUROC, pixel AP, AUPRO and the best Dice over one threshold for all of the split.

    AUPRO (Bergmann et al. 2020, "Uninformed Students") is the area under the mean overlap with each
    anomalous region (of neighbouring pixels, diagonals included) over the rate of false positives,
    up to a rate of .3: the partial AUROC of pixels that weigh 1 / their region's size, divided by
    .3.

    Args:
        masks: 1 = anomalous.
        maps: anomaly maps, higher = more anomalous.
        groups: number of each image's patient, [N].
        resamples: of the bootstrap.
    """
    names = {
        "pixel_auroc": "auroc",
        "pixel_average_precision": "average_precision",
        "aupro": "aupro",
        "best_dice": "best_dice",
    }
    if masks.min() == masks.max():
        return {name: Estimate(math.nan, math.nan, math.nan) for name in names}
    # There are tens of millions of pixels: they are sorted once, for all that follows.
    order = np.argsort(maps, axis=None)
    scores, labels = maps.ravel()[order], masks.ravel()[order].astype(np.int8)
    region = region_weights(masks).ravel()[order]
    ranks = np.cumsum(np.diff(scores, prepend=scores[:1]) > 0)
    normal = np.bincount(ranks, labels == 0)[np.newaxis]
    exact = {
        False: (np.bincount(ranks, labels == 1)[np.newaxis], normal),
        True: (np.bincount(ranks, region)[np.newaxis], normal),
    }
    # Quantiles of the anomalous pixels too: where they are rare, those of all pixels would put
    # every threshold that matters into one bin.
    shares = np.linspace(0, 1, _PIXEL_BINS)[:-1]
    chosen = (scores, scores[labels == 1])
    edges = np.unique(np.concatenate([np.quantile(part, shares) for part in chosen]))
    columns = np.searchsorted(edges, scores, side="right")  # a bin begins with its edge
    pixel_groups = np.repeat(groups, masks[0].size)[order]
    positive, negative = _tables(labels, columns, pixel_groups)
    by_region = _group_table(columns, pixel_groups, labels == 1, negative.shape, region)
    binned = {False: (positive, negative), True: (by_region, negative)}
    return {
        name: Estimate(
            float(_CURVES[metric](*exact[metric == "aupro"])[0]),
            *_interval(metric, binned[metric == "aupro"], resamples),
        )
        for name, metric in names.items()
    }


def region_weights(
    masks: UInt8[np.ndarray, "n height width"],
) -> Float[np.ndarray, "n height width"]:
    """1 / the number of pixels of the connected region that a pixel is of; 0 outside of all."""
    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True  # of the same image, diagonals included
    regions, _ = scipy.ndimage.label(masks, neighbours)
    sizes = np.bincount(regions.ravel()).astype(float)
    return np.where(regions > 0, 1 / sizes[regions], 0.0)
