"""The audit of a study: the figures that papers report, and those that can be reached in use.

Per system: figures at the threshold that is best on the test split (as papers report), at one
chosen on a validation fold, and at two from normal images alone: at a given rate of false
positives, and at the rate that the best threshold has. The last one differs from the best only in
that no label chose it. For comparison, the same for scores without a network, and the F1 of
flagging everything.
"""

import dataclasses
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
from jaxad.evaluate.references import TITLES, ReferenceScores
from jaxad.report.sections import FIGURES
from jaxad.study.plan import PlannedRun, Runs
from jaxad.study.results import Scored, Spread, reference_config, spread_of
from jaxad.types import group_numbers

#: The sources of a threshold, in the order of the table.
BEST, FOLDS, NORMALS, SAME_RATE = THRESHOLDS = (
    "best_on_test", "five_fold", "normal_images_only", "normal_images_same_rate",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """One experiment, or baseline, on one test split.

    Attributes:
        figures: one of `THRESHOLDS` -> one of `FIGURES` -> its spread over runs, where each run
            with five folds counts with their mean. Undefined thresholds are missing.
        folds: `auroc` and `FIGURES` -> mean and standard deviation over five folds, each the mean
            over runs; {} where the folds are undefined.
    """

    name: str
    auroc: Spread
    figures: Mapping[str, Mapping[str, Spread]]
    folds: Mapping[str, Spread]


@dataclasses.dataclass(frozen=True)
class Audit:
    """The audit of one test split.

    Attributes:
        rate: the rate of false positives of the threshold from normal images.
        patients: the number of normal patients in the calibration; the smallest if runs differ.
        all_positive_f1: the F1 of flagging everything.
        rows: experiments by AUROC, highest first, then the reference scores.
    """

    split: str
    rate: float
    patients: int
    all_positive_f1: float
    rows: tuple[AuditRow, ...]


def make_audit(
    runs: Runs, scored: Scored, data_set: DataSet, references: ReferenceScores, split: str
) -> Audit | None:
    """The audit of a test split from finished runs; None if the split has only one class.

    Raises:
        UserError: a run has no calibration, or one of another checkpoint or another site.
    """
    first = next(iter(scored.values()))[0]
    if first.labels.min() == first.labels.max():
        return None
    own_rate = next(iter(runs.values()))[0].config.evaluate.false_positive_rate  # see `plan`
    calibrations = {name: [_calibration(run) for run in seeds] for name, seeds in runs.items()}
    patients = group_numbers(data_set.split(OWN_SPLIT).groups)
    fitted = [name for name in TITLES if name in scored]
    of_val = references.of(OWN_SPLIT, reference_config(runs))
    for name in fitted:
        calibrations[name] = [calibrate(of_val[name].astype(np.float64), patients)]
    every = [calibration for seeds in calibrations.values() for calibration in seeds]
    rate = max(own_rate, *(calibration.smallest_rate for calibration in every))
    experiments, baselines = (
        [_row(name, scored[name], calibrations[name], rate) for name in names]
        for names in (runs, fitted)
    )
    experiments.sort(key=lambda row: -row.auroc.mean)
    return Audit(
        split=split,
        rate=rate,
        patients=min(calibration.num_patients for calibration in every),
        all_positive_f1=thresholds.all_positive_f1(first.labels),
        rows=(*experiments, *baselines),
    )


def _calibration(run: PlannedRun) -> Calibration:
    stored = read_calibration_set(run.workdir.calibration)
    if stored is not None and not stored.is_own:
        raise UserError(
            f"workdir '{run.workdir.path}': is calibrated on '{stored.source}', but an audit needs "
            f"the calibration on '{OWN_SPLIT}'; remove its "
            f"{run.workdir.calibration.name} and start the study again."
        )
    return load_calibration(run.workdir.path)


def _row(
    name: str, runs: Sequence[ScoredSplit], calibrations: Sequence[Calibration], rate: float
) -> AuditRow:
    folds = [thresholds.five_fold(run.labels, run.columns["score"], run.groups) for run in runs]
    figures = [
        _figures(run, calibration, rate) | ({FOLDS: of_folds["mean"]} if of_folds else {})
        for run, calibration, of_folds in zip(runs, calibrations, folds, strict=True)
    ]
    return AuditRow(
        name=name,
        auroc=spread_of([value(AUROC, run) for run in runs]),
        figures={
            key: {name: spread_of([of_run[key][name] for of_run in figures]) for name in FIGURES}
            for key in THRESHOLDS
            if all(key in of_run for of_run in figures)
        },
        folds=_fold_spreads([of_folds for of_folds in folds if of_folds]),
    )


def _figures(
    run: ScoredSplit, calibration: Calibration, rate: float
) -> dict[str, dict[str, float]]:
    """The figures of one run by source of the threshold, without those of five folds."""
    labels, scores = run.labels, run.columns["score"]
    best = thresholds.best_f1(labels, scores)
    smallest = calibration.smallest_rate
    same_rate = min(max(1 - best.specificity, smallest), 1 - smallest)
    of_normals = {
        key: thresholds.at_threshold(labels, scores, calibration.image_threshold(value))
        for key, value in ((NORMALS, rate), (SAME_RATE, same_rate))
    }
    return {key: dataclasses.asdict(found) for key, found in ({BEST: best} | of_normals).items()}


def _fold_spreads(folds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Spread]:
    """The mean over runs of each figure's mean and deviation over folds."""
    spreads = {}
    for name in (AUROC.name, *FIGURES) if folds else ():
        mean, deviation = (
            float(np.mean([run[key][name] for run in folds])) for key in ("mean", "deviation")
        )
        spreads[name] = Spread(mean, deviation, len(folds))
    return spreads
