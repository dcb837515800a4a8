"""The audit of a study: what systems are said to reach, and what a user of them would get.

One row a system: figures at the threshold that is best on the test split (what papers report), at
one chosen on a validation fold, and at one from normal images alone; beside them what is had
without a network, and without looking.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np

from jaxad.calibration.calibration_set import OWN_SPLIT, read_calibration_set
from jaxad.calibration.conformal import Calibration, calibrate
from jaxad.data.sources import DataSet
from jaxad.detector.load import load_calibration
from jaxad.errors import UserError
from jaxad.evaluate import thresholds
from jaxad.evaluate.metrics import AUROC
from jaxad.evaluate.paired import ScoredSplit, value
from jaxad.evaluate.trivial import TrivialScores
from jaxad.study.plan import PlannedRun
from jaxad.study.results import BASELINES, Scored, Spread, spread_of
from jaxad.types import group_numbers

FIGURES = ("f1", "accuracy", "sensitivity", "specificity")

#: Who chose the threshold, in the order of the table.
BEST, FOLDS, NORMALS = THRESHOLDS = ("best_on_test", "five_fold", "normal_images_only")


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """One experiment, or trivial score, on one test split.

    Attributes:
        name: of it.
        auroc: over its runs.
        figures: one of `THRESHOLDS` -> one of `FIGURES` -> over its runs; of five folds each run
            is its mean. What is undefined is left out.
    """

    name: str
    auroc: Spread
    figures: Mapping[str, Mapping[str, Spread]]


@dataclasses.dataclass(frozen=True)
class Audit:
    """Of one test split.

    Attributes:
        split: its name.
        rate: of false positives that normal images were asked for.
        patients: that calibrated; the least where runs differ.
        all_positive_f1: of calling everything anomalous.
        rows: experiments, highest AUROC first, then `BASELINES`.
    """

    split: str
    rate: float
    patients: int
    all_positive_f1: float
    rows: tuple[AuditRow, ...]


def make_audit(
    planned: Mapping[str, Sequence[PlannedRun]],
    scored: Scored,
    data_set: DataSet,
    trivial: TrivialScores,
    split: str,
) -> Audit | None:
    """The audit of a test split from the finished runs; None where the split has one class.

    Raises:
        UserError: a run has no calibration, or one of another checkpoint or another site.
    """
    first = next(iter(scored.values()))[0]
    if first.labels.min() == first.labels.max():
        return None
    rates = {run.config.evaluate.false_positive_rate for runs in planned.values() for run in runs}
    if len(rates) > 1:
        raise UserError(
            f"config.experiments: evaluate.false_positive_rate is {sorted(rates)}; one audit has "
            "one rate."
        )
    calibrations = {name: [_calibration(run) for run in runs] for name, runs in planned.items()}
    normal = data_set.split("val")
    for name in BASELINES:
        scores = trivial.of("val")[name].astype(np.float64)
        calibrations[name] = [calibrate(scores, group_numbers(normal.groups))]
    every = [one for several in calibrations.values() for one in several]
    rate = max(rates.pop(), *(one.smallest_rate for one in every))
    names = (*planned, *BASELINES)
    rows = [_row(name, scored[name], calibrations[name], rate) for name in names]
    return Audit(
        split=split,
        rate=rate,
        patients=min(one.num_patients for one in every),
        all_positive_f1=thresholds.all_positive_f1(first.labels),
        rows=(
            *sorted(rows[: len(planned)], key=lambda row: -row.auroc.mean),
            *rows[len(planned) :],
        ),
    )


def _calibration(run: PlannedRun) -> Calibration:
    stored = read_calibration_set(run.workdir)
    if stored is not None and not stored.is_own:
        raise UserError(
            f"workdir '{run.workdir.path}': calibrated on '{stored.source}'; an audit compares "
            f"runs that are calibrated on '{OWN_SPLIT}': remove its "
            f"{run.workdir.calibration.name} and start again."
        )
    return load_calibration(run.workdir.path)


def _row(
    name: str, runs: Sequence[ScoredSplit], calibrations: Sequence[Calibration], rate: float
) -> AuditRow:
    of_runs = [_figures(*pair, rate) for pair in zip(runs, calibrations, strict=True)]
    return AuditRow(
        name=name,
        auroc=spread_of([value(AUROC, run) for run in runs]),
        figures={
            key: {
                figure: spread_of([found[key][figure] for found in of_runs]) for figure in FIGURES
            }
            for key in THRESHOLDS
            if all(key in found for found in of_runs)
        },
    )


def _figures(
    run: ScoredSplit, calibration: Calibration, rate: float
) -> dict[str, dict[str, float]]:
    labels, scores = run.labels, run.columns["score"]
    from_normals = calibration.image_threshold(rate)
    found = {
        BEST: dataclasses.asdict(thresholds.best_f1(labels, scores)),
        NORMALS: dataclasses.asdict(thresholds.at_threshold(labels, scores, from_normals)),
    }
    folds = thresholds.five_fold(labels, scores, run.groups)
    return found if folds is None else {**found, FOLDS: folds["mean"]}


def comma_separated(audits: Sequence[Audit]) -> str:
    """The whole `audit.csv`: a row per test split, system, threshold and figure."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["split", "system", "threshold", "figure", "mean", "standard_deviation", "runs"]
    )
    for audit in audits:
        for row in audit.rows:
            writer.writerow([audit.split, row.name, "", "auroc", *dataclasses.astuple(row.auroc)])
            for key, figures in row.figures.items():
                for figure, found in figures.items():
                    cells = dataclasses.astuple(found)
                    writer.writerow([audit.split, row.name, key, figure, *cells])
        writer.writerow([audit.split, "", "all_positive", "f1", audit.all_positive_f1, "", ""])
    return file.getvalue()
