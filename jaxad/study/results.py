"""The results of a study: scores of its runs, and the tables that compare them."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad.calibration.calibration_set import OWN_SPLIT
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.evaluate.metrics import AUROC, PIXELS, Metric, load_metrics, union
from jaxad.evaluate.paired import (
    Difference,
    ScoredSplit,
    comparable,
    difference,
    ensemble,
    errors_first,
    value,
)
from jaxad.evaluate.positions import corrected_column
from jaxad.evaluate.references import LINEAR_BASELINE, TITLES, ReferenceScores, encoder_title
from jaxad.evaluate.references.features import encoder_source
from jaxad.evaluate.score_table import read_score_table
from jaxad.nn.backbones import RANDOM
from jaxad.study.plan import PlannedRun, Runs, Size, sizes
from jaxad.train.writer import FIT_SECONDS, read_metrics
from jaxad.types import Split, group_numbers

_RATE = "train/images_per_second"

#: Experiments and reference scores by name -> the scores of each of their runs on a test split.
Scored = Mapping[str, Sequence[ScoredSplit]]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (NaN for one run) of a metric over runs."""

    mean: float
    deviation: float
    runs: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One experiment, or reference score, on one test split; by name of the metrics.

    Attributes:
        differences: those from `Table.references`, which have none themselves.
        from_best: the difference in AUROC from `Table.best_reference`; None where it is undefined.
        size: the size of the system; None for a reference score.
        seconds: training time, the mean over runs; NaN for a reference score.
    """

    experiment: str
    metrics: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    from_best: Difference | None
    size: Size | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Table:
    """All experiments on one test split, best first.

    Attributes:
        references: metric -> the experiment that the others are compared with. Metrics of pixels
            have none, because the runs keep no anomaly maps.
        metrics: the metrics that at least one experiment has.
        rows: the experiments, then the reference scores.
        best_reference: the reference score with the highest AUROC; "" where AUROC is undefined.
        reference_encoder: encoder of the reference scores on features; "" without them.
        ensembles: for experiments with several runs, the ensemble of these runs; differences are
            from the mean of the runs.
    """

    split: str
    references: Mapping[str, str]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    best_reference: str
    reference_encoder: str
    ensembles: tuple[Row, ...]


def reference_config(runs: Runs) -> ConfigDict:
    """The config whose encoder the reference scores of a study use: one with its own, if any."""
    configs = [seeds[0].config for seeds in runs.values()]
    own = [config for config in configs if "backbone" in config.model]
    return min(own or configs, key=lambda config: RANDOM in encoder_source(config))


def read_scores(runs: Runs, data_set: DataSet, references: ReferenceScores, split: str) -> Scored:
    """The scores of every finished run on a test split; reference scores count as runs.

    Raises:
        UserError: the scores of a run cannot be read, or belong to other images.
    """
    rows = data_set.split(split)
    scored = {name: [_read(run, split, rows) for run in seeds] for name, seeds in runs.items()}
    config = reference_config(runs)
    val_split = data_set.split(OWN_SPLIT)
    of_split, of_val = (references.of(name, config) for name in (split, OWN_SPLIT))
    for name in TITLES:
        if name in of_split:
            scores = of_split[name].astype(np.float64)
            mse = {"mse": scores} if name == LINEAR_BASELINE else {}
            wanted = bool(config.evaluate.position_correction)
            corrected = corrected_column(scores, rows, of_val[name], val_split, wanted=wanted)
            labels, groups = rows.labels.astype(np.int64), group_numbers(rows.groups)
            scored[name] = [ScoredSplit(labels, groups, {"score": scores, **mse, **corrected})]
    return scored


def best_reference(scored: Scored) -> str:
    """The reference score with the highest AUROC; "" where it is undefined."""
    aurocs = {
        name: value(AUROC, scored[name][0])
        for name in TITLES
        if name in scored and comparable([AUROC], scored[name])
    }
    return max(aurocs, key=lambda name: aurocs[name], default="")


def make_table(config: ConfigDict, runs: Runs, scored: Scored, split: str) -> Table:
    """The table of one test split, from the finished runs of a study and their `read_scores`."""
    metrics = union(load_metrics(run.config) for seeds in runs.values() for run in seeds)
    of_images = [metric for metric in metrics if metric.column != PIXELS]
    spreads = {key: _spreads(of_images, scores) for key, scores in scored.items()}
    measured = _in_any(of_images, [spreads[key] for key in runs])
    of_pixels = {key: _pixel_spreads(metrics, seeds, split) for key, seeds in runs.items()}
    # Where the reference has no such metric, or all its runs failed, the best one replaces it.
    of_reference = spreads.get(config.reference, {})
    references = {
        metric.name: config.reference if metric.name in of_reference else _best(metric, spreads)
        for metric in measured
    }
    best = best_reference(scored)
    system_sizes = sizes(runs)
    resamples = int(config.bootstrap_resamples)

    def row(key: str) -> Row:
        differences = {
            metric.name: difference(metric, scored[key], scored[references[metric.name]], resamples)
            for metric in measured
            if metric.name in spreads[key] and key != references[metric.name]
        }
        from_best = None
        if best and key != best:
            from_best = difference(AUROC, scored[key], scored[best], resamples)
        seconds = [training_seconds(run) for run in runs.get(key, ())] or [float("nan")]
        size = system_sizes.get(key)
        found = {**spreads[key], **of_pixels.get(key, {})}
        return Row(key, found, differences, from_best, size, float(np.mean(seconds)))

    def ensemble_row(key: str) -> Row:
        together = ensemble(scored[key])
        # Ranks replace scores: only metrics of thresholds keep their meaning.
        metrics = comparable([m for m in measured if m.curve is not None], [together])
        # Runs are not resampled, because both sides consist of the same ones.
        differences = {
            m.name: difference(m, [together], scored[key], resamples, resample_runs=False)
            for m in metrics
        }
        return Row(key, _spreads(metrics, [together]), differences, None, None, float("nan"))

    ranked = list(runs)  # by AUROC, the highest first
    if AUROC in measured:
        ranked.sort(key=lambda name: -spreads[name][AUROC.name].mean)
    return Table(
        split=split,
        references=references,
        metrics=(*measured, *_in_any(metrics, list(of_pixels.values()))),
        rows=tuple(row(key) for key in [*ranked, *(name for name in TITLES if name in scored)]),
        best_reference=best,
        reference_encoder=encoder_title(reference_config(runs)),
        ensembles=tuple(
            ensemble_row(key)
            for key in ranked
            if len(scored[key]) > 1 and comparable([AUROC], scored[key])
        ),
    )


def _spreads(metrics: Sequence[Metric], runs: Sequence[ScoredSplit]) -> dict[str, Spread]:
    """The spread over runs of each metric that all of them have."""
    defined = comparable(metrics, runs)
    return {metric.name: spread_of([value(metric, run) for run in runs]) for metric in defined}


def _in_any(
    metrics: Sequence[Metric], experiments: Sequence[Mapping[str, Spread]]
) -> tuple[Metric, ...]:
    """The metrics that at least one experiment has, errors first."""
    return errors_first(m for m in metrics if any(m.name in spreads for spreads in experiments))


def _pixel_spreads(
    metrics: Sequence[Metric], seeds: Sequence[PlannedRun], split: str
) -> dict[str, Spread]:
    """The spread over runs of each metric of pixels that all of them have.

    Raises:
        UserError: the metrics of a run cannot be read.
    """
    found = [_read_metrics(run, split) for run in seeds]
    spreads = {}
    for metric in metrics:
        values = [run.get(metric.name, {}).get("value") for run in found]
        if metric.column == PIXELS and None not in values:
            spreads[metric.name] = spread_of(values)
    return spreads


def _best(metric: Metric, spreads: Mapping[str, Mapping[str, Spread]]) -> str:
    """The experiment with the best mean of a metric."""
    sign = -1 if metric.higher_is_better else 1
    candidates = [name for name in spreads if name not in TITLES and metric.name in spreads[name]]
    return min(candidates, key=lambda name: sign * spreads[name][metric.name].mean)


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of a metric, given its value for each run."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), deviation, len(values))


def _read(run: PlannedRun, name: str, split: Split) -> ScoredSplit:
    """The scores that a run wrote for a test split."""
    path = run.workdir.evaluation(name) / "scores.csv"
    remedy = _remedy(run)
    try:
        table = read_score_table(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read ({error!r}); {remedy}") from error
    images = list(zip(table.ids, table.groups, table.labels.tolist(), strict=True))
    if images != list(zip(split.ids, split.groups, split.labels.tolist(), strict=True)):
        raise UserError(f"'{path}' was made from other images than those of '{name}' now; {remedy}")
    return table.scored()


def _read_metrics(run: PlannedRun, split: str) -> Mapping[str, Any]:
    """The metrics.json that a run wrote for a test split."""
    path = run.workdir.evaluation(split) / "metrics.json"
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read ({error!r}); {_remedy(run)}") from error


def _remedy(run: PlannedRun) -> str:
    return f"to evaluate the run again, remove '{run.workdir.report}' and start the study again."


def training_seconds(run: PlannedRun) -> float:
    """Returns the training time of a run, in seconds: at the median rate, or of its fit.

    The median ignores single slow intervals between logs, in which data were read or a checkpoint
    was saved. A run that trained with others as one program gets its share of the time.
    """
    rows = read_metrics(run.workdir.metrics)
    rates = [(int(row["step"]), row[_RATE]) for row in rows if _RATE in row]
    if not rates:
        return next((float(row[FIT_SECONDS]) for row in rows if FIT_SECONDS in row), 0.0)
    images = max(rates)[0] * run.config.data.batch_size
    return images / float(np.median([rate for _, rate in rates]))
