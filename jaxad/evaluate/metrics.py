"""The metrics of a detector, one record each.

`metrics.json`, reports, comparisons and the tables of studies read these records: a new metric is
one more record in `METRICS`. `config.evaluate.metrics` names metrics of other packages; see
docs/metrics.md.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np
import scipy.sparse
import sklearn.metrics
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from jaxad.detector.detector import SCORE
from jaxad.errors import RunError, UserError, first_line
from jaxad.evaluate import curves
from jaxad.evaluate.bootstrap import Counts, Estimate, Statistic, bootstrap_interval
from jaxad.evaluate.positions import CORRECTED_SCORE
from jaxad.extension import load_object
from jaxad.types import Groups

Scalars = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]

#: `Metric.column` of metrics of pixels: anomaly maps, whose labels are the masks.
PIXELS = "pixels"
#: Columns of the quality of reconstructions; see `jaxad.evaluate.reconstructions`.
RECONSTRUCTION_PSNR, RECONSTRUCTION_SSIM = "reconstruction_psnr", "reconstruction_ssim"

_FIELD = "config.evaluate.metrics"
#: Keys of `metrics.json` that hold something other than a metric, besides `num_*`.
_OTHER_KEYS = (
    "checkpoint_step", "score_weights", "decisions", "best_reference", "reference_encoder",
    "trivial", "external",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of the scored images of a test split, or of the pixels of their anomaly maps.

    It is undefined (NaN; null in `metrics.json`) where one of the two classes is missing, unless it
    is `normal_only`.

    Attributes:
        name: key in `metrics.json` and in CSV tables; a Python identifier.
        function: (labels [N] int64, 1 = anomalous; values [N]) -> the metric of these images.
            Metrics of pixels have none: their curve gives the value.
        curve: the same metric of weighted thresholds, for many resamples at once; see `curves`.
            Without it, the function is called for every resample.
        column: the values: `score`, `score_position_corrected` (where slices have positions), a
            component of the score such as `mse`, or `PIXELS` (where there are masks).
        normal_only: whether it is a metric of the normal images alone.
        by_region: whether each anomalous pixel weighs 1 / the size of its region.
        higher_is_better: whether a larger value is the better one.
        title: name in reports; by default the name as words.
        heading: name in the tables of studies; by default the title.
        decimals: digits after the point in tables.
    """

    name: str
    function: Callable[[Labels, Scalars], float] | None = None
    curve: Callable[[curves.Weights, curves.Weights], Float[np.ndarray, " resamples"]] | None = None
    column: str = SCORE
    normal_only: bool = False
    by_region: bool = False
    higher_is_better: bool = True
    title: str = ""
    heading: str = ""
    decimals: int = 3

    def __post_init__(self) -> None:
        title = self.title or self.name.replace("_", " ").capitalize()
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "heading", self.heading or title)

    def rows(self, labels: Labels) -> Bool[np.ndarray, " n"]:
        """Marks the images that the metric is computed from."""
        return labels == 0 if self.normal_only else np.ones(len(labels), bool)

    def value(self, labels: Labels, values: Scalars) -> float:
        """Returns the metric of these rows; NaN where it is undefined.

        Raises:
            RunError: the function fails or returns no number.
        """
        assert self.function is not None
        if not len(labels) or (not self.normal_only and labels.min() == labels.max()):
            return math.nan
        with self._errors_named("function"):
            return float(self.function(labels, values))

    def at_thresholds(
        self, positive: curves.Weights, negative: curves.Weights
    ) -> Float[np.ndarray, " resamples"]:
        """Returns the metric of weighted thresholds; see `curve`.

        Raises:
            RunError: the curve fails.
        """
        assert self.curve is not None
        with self._errors_named("curve"):
            return self.curve(positive, negative)

    @contextlib.contextmanager
    def _errors_named(self, part: str) -> Iterator[None]:
        """Turns an error inside the block into a RunError of one line that names the metric."""
        try:
            yield
        except Exception as error:  # the function may be of another package
            line = f"{type(error).__name__}: {first_line(error)}"
            raise RunError(f"metric '{self.name}': its {part} failed ({line}).") from error


def _mean(labels: Labels, values: Scalars) -> float:
    del labels
    return float(np.mean(values))


AUROC = Metric(
    "auroc", sklearn.metrics.roc_auc_score, curves.auroc, title="AUROC, raw", heading="AUROC"
)
AUROC_CORRECTED = dataclasses.replace(
    AUROC,
    name="auroc_position_corrected",
    column=CORRECTED_SCORE,
    title="AUROC, position-corrected",
    heading="AUROC, corrected",
)
AVERAGE_PRECISION = Metric(
    "average_precision",
    sklearn.metrics.average_precision_score,
    curves.average_precision,
    title="Average precision (AP)",
    heading="AP",
)
#: MSE, PSNR and SSIM: how well a system reconstructs what it should, the normal images.
MSE = Metric(
    "mse",
    _mean,
    column="mse",
    normal_only=True,
    higher_is_better=False,
    title="Mean squared error (MSE)",
    heading="MSE",
    decimals=5,
)
PSNR = Metric(
    "psnr",
    _mean,
    column=RECONSTRUCTION_PSNR,
    normal_only=True,
    title="Peak signal-to-noise ratio (PSNR), dB",
    heading="PSNR, dB",
    decimals=1,
)
SSIM = Metric(
    "ssim",
    _mean,
    column=RECONSTRUCTION_SSIM,
    normal_only=True,
    title="Structural similarity (SSIM)",
    heading="SSIM",
)
PIXEL_AUROC = Metric("pixel_auroc", curve=curves.auroc, column=PIXELS, title="Pixel AUROC")
#: AUPRO (Bergmann et al. 2020, "Uninformed Students"): the area under the mean overlap with each
#: anomalous region (of neighbouring pixels, diagonals included) over the false-positive rate, up to
#: a rate of .3, divided by .3: a partial AUROC of pixels that weigh 1 / the size of their region.
AUPRO = Metric(
    "aupro",
    curve=curves.partial_auroc,
    column=PIXELS,
    by_region=True,
    title="AUPRO (regions, up to 30 % false positives)",
)

#: Every metric, in the order of reports.
METRICS = (
    AUROC,
    AUROC_CORRECTED,
    AVERAGE_PRECISION,
    MSE,
    PSNR,
    SSIM,
    PIXEL_AUROC,
    Metric("pixel_average_precision", curve=curves.average_precision, column=PIXELS),
    AUPRO,
    Metric("best_dice", curve=curves.best_dice, column=PIXELS, title="Best Dice"),
)


def load_metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """Returns the metrics of a run: `METRICS`, then those of `config.evaluate.metrics`.

    Raises:
        UserError: an object that the config names cannot be imported or is not a usable metric.
    """
    return union([METRICS, [_external(name) for name in config.evaluate.metrics]])


def union(metrics: Iterable[Iterable[Metric]]) -> tuple[Metric, ...]:
    """Returns the metrics of several collections, each once.

    Raises:
        UserError: two different metrics have the same name.
    """
    by_name: dict[str, Metric] = {}
    for metric in (metric for part in metrics for metric in part):
        if by_name.setdefault(metric.name, metric) != metric:
            raise UserError(f"{_FIELD}: two metrics are named '{metric.name}'; rename yours.")
    return tuple(by_name.values())


def _external(name: str) -> Metric:
    """Imports a metric, `package.module:name`, and tries it on 20 images."""
    target = load_object(name, _FIELD)
    if isinstance(target, Metric):
        metric = target
    elif callable(target) and hasattr(target, "__name__"):
        metric = Metric(target.__name__, target)
    else:
        raise UserError(
            f"{_FIELD}: '{name}' is {type(target).__name__}; name a function (labels, scores) -> "
            "float, or a jaxad.evaluate.metrics.Metric."
        )
    key = metric.name
    if not key.isidentifier() or key in _OTHER_KEYS or key.startswith("num_"):
        raise UserError(
            f"{_FIELD}: '{name}' is named '{key}', which cannot be a metric's key in metrics.json; "
            "rename it."
        )
    if metric.column == PIXELS and metric.curve is None:
        raise UserError(f"{_FIELD}: '{name}' has no curve; a metric of pixels needs one.")
    if metric.column != PIXELS and metric.function is None:
        raise UserError(f"{_FIELD}: '{name}' has no function; a metric of images needs one.")
    try:
        _try(metric)
    except Exception as error:  # a function of another package may raise anything
        raise UserError(
            f"{_FIELD}: '{name}' fails on labels and scores of 20 images ({type(error).__name__}: "
            f"{first_line(error)}); it takes two arrays [N] and returns a number."
        ) from error
    return metric


def _try(metric: Metric) -> None:
    """Calls a metric's functions as an evaluation does; raises whatever they raise."""
    labels, values = np.tile([0, 1], 10), np.linspace(0, 1, 20)
    if metric.curve is not None:
        weights = np.stack([labels, labels[::-1]]).astype(float)
        if np.shape(metric.curve(weights, 1 - weights)) != (2,):
            raise ValueError("its curve does not return one value per resample")
    if metric.function is not None:
        chosen = metric.rows(labels)
        float(metric.function(labels[chosen], values[chosen]))


def is_measured(metric: Metric, labels: Labels, columns: Container[str]) -> bool:
    """Whether a metric of images is defined for these labels and columns."""
    return metric.column in columns and (metric.normal_only or bool(0 < labels.mean() < 1))


def estimate(
    metric: Metric, labels: Labels, values: Scalars, groups: Groups, resamples: int
) -> Estimate:
    """Returns a metric of images with its interval.

    Args:
        metric: what to compute.
        labels: 1 = anomalous, [N].
        values: the metric's column, [N].
        groups: number of each image's patient, [N].
        resamples: the number of bootstrap resamples.

    Raises:
        RunError: see `Metric.value`.
    """
    chosen = metric.rows(labels)
    labels, values = labels[chosen], values[chosen]
    value = metric.value(labels, values)
    if math.isnan(value):
        return Estimate(value)
    groups = np.unique(groups[chosen], return_inverse=True)[1]
    num_groups = int(groups.max()) + 1
    statistic = resampled(metric, labels, values, groups, num_groups)
    return Estimate(value, *bootstrap_interval(statistic, num_groups, resamples))


def resampled(
    metric: Metric, labels: Labels, values: Scalars, groups: Groups, num_groups: int
) -> Statistic:
    """Returns the metric of images as a function of how often each patient is drawn."""
    chosen = metric.rows(labels)
    labels, values, groups = labels[chosen], values[chosen], groups[chosen]
    if metric.curve is not None:
        ranks = np.unique(values, return_inverse=True)[1]
        shape = (num_groups, int(ranks.max()) + 1)
        positive, negative = (rank_table(ranks, groups, labels == x, shape) for x in (1, 0))
        return lambda counts: metric.at_thresholds(counts @ positive, counts @ negative)
    if metric.function is _mean:  # sums of patients are enough
        sums = np.bincount(groups, values, minlength=num_groups)
        sizes = np.bincount(groups, minlength=num_groups).astype(float)

        def mean(counts: Counts) -> Float[np.ndarray, " resamples"]:
            with np.errstate(invalid="ignore"):
                return (counts @ sums) / (counts @ sizes)

        return mean

    def of_repeated_rows(counts: Counts) -> Float[np.ndarray, " resamples"]:
        every = np.arange(len(labels))
        draws = (np.repeat(every, times[groups]) for times in counts.astype(np.int64))
        return np.array([metric.value(labels[rows], values[rows]) for rows in draws])

    return of_repeated_rows


def rank_table(
    ranks: Groups,
    groups: Groups,
    chosen: Bool[np.ndarray, " n"],
    shape: tuple[int, int],
    weights: Scalars | None = None,
) -> scipy.sparse.csr_array:
    """Counts (or weighs) the chosen rows of each group at each rank of the score, [G, T]."""
    values = np.ones(int(chosen.sum())) if weights is None else weights[chosen]
    return scipy.sparse.coo_array((values, (groups[chosen], ranks[chosen])), shape=shape).tocsr()
