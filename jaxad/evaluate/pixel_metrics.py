"""Metrics of the pixels of anomaly maps, against masks.

Values are exact and equal scikit-learn's; intervals come from binned maps. There are tens of
millions of pixels: they are sorted once for all metrics.
"""

from collections.abc import Iterable

import numpy as np
import scipy.ndimage
from jaxtyping import Float, UInt8

from jaxad.evaluate.bootstrap import Estimate, bootstrap_interval
from jaxad.evaluate.metrics import PIXELS, Metric, rank_table
from jaxad.types import Groups

#: Number of quantiles at which maps are binned for intervals.
_BINS = 2048


def estimate_pixels(
    metrics: Iterable[Metric],
    masks: UInt8[np.ndarray, "n height width"],
    maps: Float[np.ndarray, "n height width"],
    groups: Groups,
    resamples: int,
) -> dict[str, Estimate]:
    """Returns the metrics of pixels among `metrics` by name, each over all pixels of the split.

    In masks, 1 = anomalous; in maps, higher = more anomalous; `groups` numbers the patients.
    """
    of_pixels = [metric for metric in metrics if metric.column == PIXELS]
    if masks.min() == masks.max():
        return {metric.name: Estimate(np.nan) for metric in of_pixels}
    order = np.argsort(maps, axis=None)
    scores, labels = maps.ravel()[order], masks.ravel()[order].astype(np.int8)
    region = region_weights(masks).ravel()[order]
    ranks = np.cumsum(np.diff(scores, prepend=scores[:1]) > 0)
    normal = np.bincount(ranks, labels == 0)[np.newaxis]
    exact = {
        False: (np.bincount(ranks, labels == 1)[np.newaxis], normal),
        True: (np.bincount(ranks, region)[np.newaxis], normal),
    }
    # Quantiles of the anomalous pixels too: where they are rare, quantiles of all pixels alone
    # would put every threshold that matters into one bin.
    shares = np.linspace(0, 1, _BINS)[:-1]
    anomalous = scores[labels == 1]
    edges = np.unique(np.concatenate([np.quantile(x, shares) for x in (scores, anomalous)]))
    bins = np.searchsorted(edges, scores, side="right")  # a bin begins with its edge
    pixel_groups = np.repeat(groups, masks[0].size)[order]
    shape = (int(groups.max()) + 1, int(bins.max()) + 1)
    negative = rank_table(bins, pixel_groups, labels == 0, shape)
    positive = {
        by_region: rank_table(bins, pixel_groups, labels == 1, shape, region if by_region else None)
        for by_region in (False, True)
    }

    def estimate(metric: Metric) -> Estimate:
        weights = positive[metric.by_region]
        interval = bootstrap_interval(
            lambda counts: metric.at_thresholds(counts @ weights, counts @ negative),
            shape[0],
            resamples,
        )
        return Estimate(float(metric.at_thresholds(*exact[metric.by_region])[0]), *interval)

    return {metric.name: estimate(metric) for metric in of_pixels}


def region_weights(
    masks: UInt8[np.ndarray, "n height width"],
) -> Float[np.ndarray, "n height width"]:
    """Returns 1 / the size of the connected region of each pixel; 0 outside all regions."""
    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True  # of the same image, diagonals included
    regions, _ = scipy.ndimage.label(masks, neighbours)
    sizes = np.bincount(regions.ravel()).astype(float)
    return np.where(regions > 0, 1 / sizes[regions], 0.0)
