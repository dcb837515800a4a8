"""What a study's runs found: read from their folders, compared, and in rows for the tables."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.evaluate.metrics import AUROC, AUROC_CORRECTED, Metric, load_metrics, union
from jaxad.evaluate.paired import (
    Difference,
    ScoredSplit,
    comparable,
    difference,
    ensemble,
    value,
)
from jaxad.evaluate.positions import CORRECTED_SCORE, position_corrected
from jaxad.evaluate.score_table import read_score_table
from jaxad.evaluate.trivial import LINEAR_BASELINE, PIXEL_STATISTICS, TrivialScores
from jaxad.study.plan import PlannedRun, Size, sizes
from jaxad.train.writer import read_metrics
from jaxad.types import Split, group_numbers

_RATE = "train/images_per_second"

#: Experiments and trivial scores by name -> what each of their runs made of a test split.
Scored = Mapping[str, Sequence[ScoredSplit]]

#: Trivial scores that stand beside the experiments.
BASELINES = (PIXEL_STATISTICS, LINEAR_BASELINE)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of the sample; NaN of one run) of a metric over runs."""

    mean: float
    deviation: float
    runs: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One experiment on one test split.

    Attributes:
        experiment: its name in the study, or `LINEAR_BASELINE`.
        found: metric -> over its runs.
        differences: metric -> its difference from the reference experiment; none of itself.
        size: of its system; None for the baseline.
        seconds: of training, the mean over runs; NaN for the baseline.
    """

    experiment: str
    found: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    size: Size | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Table:
    """All experiments on one test split, best first.

    Attributes:
        split: the test split.
        references: metric -> the experiment that others are compared with.
        metrics: those that every experiment has.
        rows: of the experiments, then that of the baseline.
        ensembles: of the experiments with several runs, what these are as one; differences are from
            the mean of the runs.
    """

    split: str
    references: Mapping[str, str]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    ensembles: tuple[Row, ...]


def read_scores(
    planned: Mapping[str, Sequence[PlannedRun]],
    data_set: DataSet,
    trivial: TrivialScores,
    split: str,
) -> Scored:
    """What every finished run made of a test split, and `BASELINES` as if they were runs.

    Raises:
        UserError: a run's scores cannot be read, or are of other images.
    """
    rows = data_set.split(split)
    scored = {name: [_read(run, split, rows) for run in runs] for name, runs in planned.items()}
    return scored | {name: [_baseline(data_set, trivial, split, name)] for name in BASELINES}


def make_table(
    config: ConfigDict,
    planned: Mapping[str, Sequence[PlannedRun]],
    all_scored: Scored,
    split: str,
) -> Table:
    """The table of one test split from the finished runs of a study and `read_scores` of them."""
    scored = {name: all_scored[name] for name in (*planned, LINEAR_BASELINE)}
    metrics = union(load_metrics(run.config) for runs in planned.values() for run in runs)
    measured = comparable(metrics, [run for key in planned for run in scored[key]])
    found = {
        key: {
            metric.name: spread_of([value(metric, run) for run in runs])
            for metric in comparable(measured, runs)
        }
        for key, runs in scored.items()
    }
    # Of a reference whose every run failed there is nothing to compare with.
    named = config.reference if config.reference in scored else ""
    references = {metric.name: named or _best(metric, found) for metric in measured}
    system_sizes = sizes(planned)

    def row(key: str) -> Row:
        differences = {
            metric.name: difference(metric, scored[key], scored[references[metric.name]], resamples)
            for metric in measured
            if metric.name in found[key] and key != references[metric.name]
        }
        seconds = [_training_seconds(run) for run in planned.get(key, ())]
        mean_seconds = float(np.mean(seconds)) if seconds else float("nan")
        return Row(key, found[key], differences, system_sizes.get(key), mean_seconds)

    def ensemble_row(key: str) -> Row:
        together = ensemble(scored[key])
        # Ranks replace scores: only metrics of thresholds keep their meaning.
        metrics = comparable([m for m in measured if m.curve is not None], [together])
        return Row(
            experiment=key,
            found={metric.name: spread_of([value(metric, together)]) for metric in metrics},
            differences={
                # An ensemble is made of these runs: they are the same on both sides.
                metric.name: difference(
                    metric, [together], scored[key], resamples, resample_runs=False
                )
                for metric in metrics
            },
            size=None,
            seconds=float("nan"),
        )

    resamples = int(config.bootstrap_resamples)
    ranked = _ranked(list(planned), found, measured)
    return Table(
        split=split,
        references=references,
        metrics=measured,
        rows=tuple(row(key) for key in [*ranked, LINEAR_BASELINE]),
        ensembles=tuple(
            ensemble_row(key)
            for key in ranked
            if len(scored[key]) > 1 and comparable([AUROC], scored[key])
        ),
    )


def _ranked(
    names: list[str], found: Mapping[str, Mapping[str, Spread]], measured: Sequence[Metric]
) -> list[str]:
    """Experiments, the best by the last of the AUROCs that there are first."""
    by = next((metric for metric in (AUROC_CORRECTED, AUROC) if metric in measured), None)
    return names if by is None else sorted(names, key=lambda name: -found[name][by.name].mean)


def _best(metric: Metric, found: Mapping[str, Mapping[str, Spread]]) -> str:
    sign = -1 if metric.higher_is_better else 1
    candidates = [name for name in found if name != LINEAR_BASELINE]
    return min(candidates, key=lambda name: sign * found[name][metric.name].mean)


def spread_of(values: Sequence[float]) -> Spread:
    """Over runs, one value of each."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), deviation, len(values))


def _read(run: PlannedRun, name: str, split: Split) -> ScoredSplit:
    """The scores that a run wrote.

    Raises:
        UserError: they cannot be read, or are of other images than the split's.
    """
    path = run.workdir.evaluation(name) / "scores.csv"
    remedy = f"remove '{run.workdir.report}' and start again: the run is evaluated anew."
    try:
        table = read_score_table(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read ({error!r}); {remedy}") from error
    seen = list(zip(table.ids, table.groups, table.labels.tolist(), strict=True))
    if seen != list(zip(split.ids, split.groups, split.labels.tolist(), strict=True)):
        raise UserError(f"'{path}' is of other images than '{name}' holds now; {remedy}")
    return table.scored()


def _baseline(data_set: DataSet, trivial: TrivialScores, name: str, score: str) -> ScoredSplit:
    """A trivial score as if it were a run; the linear baseline's is its squared error."""
    split, train = data_set.split(name), data_set.split("train")
    scores = trivial.of(name)[score].astype(np.float64)
    columns = {"score": scores}
    if score == LINEAR_BASELINE:
        columns["mse"] = scores
    if split.positions is not None and train.positions is not None:
        train_scores = trivial.of("train")[score].astype(np.float64)
        columns[CORRECTED_SCORE] = position_corrected(
            scores, split.positions, train_scores, train.positions
        )
    return ScoredSplit(split.labels.astype(np.int64), group_numbers(split.groups), columns)


def _training_seconds(run: PlannedRun) -> float:
    """Seconds that a run's updates take at its median rate.

    A window that read its data or waited for a save is slow once; short runs have few windows. Of a
    run that trained with others as one program this is its share.
    """
    lines = [line for line in read_metrics(run.workdir.metrics) if _RATE in line]
    if not lines:
        return 0.0
    images = max(int(line["step"]) for line in lines) * run.config.data.batch_size
    return images / float(np.median([line[_RATE] for line in lines]))
