"""Evaluates a detector on another site's labelled data, without training: external validation."""

import json
import logging
from pathlib import Path

from jaxad.calibration.calibration_set import CalibrationSet, write_calibration_set
from jaxad.data.other_site import Site, SiteSplits
from jaxad.data.sources import DataSet
from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.evaluate import metrics
from jaxad.evaluate.evaluation import calibrate_on
from jaxad.evaluate.references import ReferenceScores
from jaxad.evaluate.split_evaluation import Evaluator, map_maxima, score_split
from jaxad.runtime import interrupts, processes
from jaxad.storage.workdir import Workdir

logger = logging.getLogger(__name__)

#: Key of `metrics.json` that only evaluations of other sites have.
EXTERNAL = "external"


def usable_calibration(
    normals: CalibrationSet | None, detector: Detector, source: Path
) -> CalibrationSet:
    """Returns the stored calibration of a detector, made with the checkpoint that it has.

    Raises:
        UserError: there is none, or it was made with another checkpoint.
    """
    if normals is not None and normals.checkpoint_step == detector.step:
        return normals
    reason = "has no calibration"
    if normals is not None:
        reason = (
            f"its calibration was made with checkpoint {normals.checkpoint_step}, not "
            f"{detector.step}"
        )
    raise UserError(
        f"'{source}': {reason}; evaluate the run with --mode=evaluate first (and export it again), "
        "or calibrate on the other site with --test.calibrate=True."
    )


def check_names(folder: Workdir, site: Site, splits: SiteSplits, detector: str) -> None:
    """Checks that no evaluation of other data or of another detector would be overwritten.

    Raises:
        UserError: one would be.
    """
    for name in splits.tests:
        path = folder.evaluation(name) / "metrics.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8")).get(EXTERNAL, {})
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"'{path}' cannot be read ({error}); delete it.") from error
        if stored.get("digest") != site.digest(detector):
            raise UserError(
                f"'{path.parent}': holds the evaluation of other data ('{stored.get('root', '')}') "
                "or of another detector; choose another name with --test.as=<name>, or delete it."
            )


def evaluate_site(
    folder: Workdir,
    detector: Detector,
    normals: CalibrationSet | None,
    site: Site,
    splits: SiteSplits,
    data_set: DataSet | None,
    name: str = "",
) -> None:
    """Scores another site's test splits; writes `eval/<name>/` as for the run's own test splits.

    `calibration.json` is in the same folder, so that the decisions stay reproducible.

    Args:
        folder: a run, or a folder for the results of an exported file.
        detector: the detector of the run or the file.
        normals: its calibration; not used if the site has normal images to calibrate on.
        site: where the data lie.
        splits: the data.
        data_set: the data set of the run, for reference scores; None if it is not available.
        name: identifies an exported file.

    Raises:
        UserError: a score of a normal image is not finite, or `config.evaluate.metrics` does not
            name a usable metric.
        RunError: a score of a test image is not finite, or a metric fails.
    """
    all_metrics = metrics.load_metrics(detector.config)
    if splits.normals is not None:
        scored = score_split(detector, splits.normals, "score normals", map_maxima)
        normals = calibrate_on(detector, str(site.path), splits.normals, *scored)
    assert normals is not None, "usable_calibration checks it"
    if data_set is not None:
        for test, split in splits.tests.items():
            data_set.add_split(test, split)
    evaluator = Evaluator(
        detector=detector,
        metrics=all_metrics,
        normals=normals,
        data_set=data_set,
        references=None if data_set is None else ReferenceScores(data_set),
        val_scores=None,
    )
    external = {
        "data_set": splits.data_set,
        "root": site.path.resolve().name,
        "digest": site.digest(name),
        "calibrated_on_site": splits.normals is not None,
        "compared_with_training_images": data_set is not None,
    }
    for test, split in splits.tests.items():
        interrupts.check()
        num_anomalous = int(split.labels.sum())
        logger.info(
            f"{test}: {len(split) - num_anomalous:,} normal and {num_anomalous:,} anomalous images "
            f"of {len(set(split.groups)):,} patients"
        )
        if processes.is_first():
            write_calibration_set(folder.evaluation(test) / "calibration.json", normals)
        evaluator.write(folder.evaluation(test), test, split, {EXTERNAL: external})
