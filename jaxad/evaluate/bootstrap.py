"""95 % intervals from a bootstrap over patients.

Slices of one patient are not independent, so whole patients (groups) are resampled. Intervals are
the percentile intervals of `scipy.stats.bootstrap`.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable

import numpy as np
import scipy.stats
from jaxtyping import Float

from jaxad.runtime import interrupts

#: How often each of G groups is drawn in each of R resamples.
Counts = Float[np.ndarray, "resamples groups"]

#: A statistic of resampled groups: counts [R, G] -> values [R], NaN where it is undefined.
Statistic = Callable[[Counts], Float[np.ndarray, " resamples"]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def as_json(self) -> dict[str, float | None]:
        """Returns `{value, low, high}`, None for NaN."""
        return {
            name: float(value) if math.isfinite(value) else None
            for name, value in dataclasses.asdict(self).items()
        }


def bootstrap_interval(
    statistic: Statistic, num_groups: int, resamples: int
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a statistic of R resamples of G groups.

    With fewer than two groups there is no interval (NaN).
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
    # A resample can miss a class of a small split; the interval is over the defined values.
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
