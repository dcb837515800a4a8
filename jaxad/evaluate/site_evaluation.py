"""Evaluates a detector on another site's labelled data, without training: external validation.

`prepare_run` and `prepare_exported` read and check everything before `SiteEvaluation.write` writes.
"""

import dataclasses
import json
import logging
import os
from pathlib import Path

from ml_collections import ConfigDict

from jaxad.calibration.calibration_set import (
    CalibrationSet,
    read_calibration_set,
    write_calibration_set,
)
from jaxad.config import run_config
from jaxad.data import membership
from jaxad.data.leaks import TRAINING_SPLITS, named_patients
from jaxad.data.other_site import Site, SiteSplits, check_not_learnt, read_site
from jaxad.data.sources import DataSet
from jaxad.detector import exported
from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.evaluate import metrics
from jaxad.evaluate.evaluation import calibrate_on, restore_same
from jaxad.evaluate.references import ReferenceScores
from jaxad.evaluate.split_evaluation import Evaluator, map_maxima, score_split
from jaxad.runtime import interrupts, messages, processes
from jaxad.runtime.progress import counted
from jaxad.storage.workdir import Workdir

logger = logging.getLogger(__name__)

#: Key of `metrics.json` that only evaluations of other sites have.
EXTERNAL = "external"


@dataclasses.dataclass(frozen=True)
class SiteEvaluation:
    """An evaluation on another site's data that can be written.

    Attributes:
        folder: a run, or a folder for the results of an exported file.
        detector: the detector of the run or the file.
        metrics: the metrics to compute.
        normals: its calibration; None if the site has normal images to calibrate on.
        site: where the data lie.
        splits: the data.
        data_set: the data set of the run, for reference scores; None if it is not available.
        file_digest: identifies an exported file; "" for a run.
    """

    folder: Workdir
    detector: Detector
    metrics: tuple[metrics.Metric, ...]
    normals: CalibrationSet | None
    site: Site
    splits: SiteSplits
    data_set: DataSet | None
    file_digest: str

    def write(self) -> None:
        """Scores the site's test splits; writes `eval/<name>/` as for the run's own test splits.

        `calibration.json` is in the same folder, so that the decisions stay reproducible.

        Raises:
            UserError: a score of a normal image is not finite.
            RunError: a score of a test image is not finite, or a metric fails.
        """
        external = {
            "name": self.site.name,
            "data_set": self.splits.data_set,
            "root": self.site.path.resolve().name,
            "digest": self.site.digest(self.file_digest),
            "calibrated_on_site": self.splits.normals is not None,
            "compared_with_training_images": self.data_set is not None,
        }
        evaluator = self._evaluator()
        for name, split in self.splits.tests.items():
            interrupts.check()
            num_anomalous = int(split.labels.sum())
            logger.info(
                f"{name}: {len(split) - num_anomalous:,} normal and {num_anomalous:,} anomalous "
                f"images of {counted(len(set(split.groups)), 'patient')}"
            )
            folder = self.folder.evaluation(name)
            write_calibration_set(folder / "calibration.json", evaluator.normals)
            evaluator.write(folder, name, split, {EXTERNAL: external})

    def _evaluator(self) -> Evaluator:
        """Returns what evaluates the splits; calibrates on the site if it has normal images."""
        normals = self.normals
        if self.splits.normals is not None:
            scored = score_split(self.detector, self.splits.normals, "score normals", map_maxima)
            normals = calibrate_on(self.detector, self.site.name, self.splits.normals, *scored)
        assert normals is not None, "_prepare checks it"
        if self.data_set is not None:
            for name, split in self.splits.tests.items():
                self.data_set.add_split(name, split)
        return Evaluator(
            detector=self.detector,
            metrics=self.metrics,
            normals=normals,
            data_set=self.data_set,
            references=None if self.data_set is None else ReferenceScores(self.data_set),
            val_scores=None,
        )


def prepare_run(run: Workdir, config: ConfigDict, site: Site) -> SiteEvaluation:
    """Prepares the evaluation of a run's last checkpoint; every process must call it.

    Fields that affect only evaluations are those of `config`, not those stored in the run.

    Raises:
        UserError: there is no run or checkpoint, or no calibration to use; the site's data are
            unusable (see `read_site`) or hold images that were learnt from; or the results of other
            data have the same name.
        RunError: processes see different checkpoints.
    """
    detector = restore_same(run)
    run_config.copy_evaluation(config, detector.config)
    prepared = _prepare(run, run.path, detector, read_calibration_set(run.calibration), site, "")
    splits = prepared.splits.with_normals(site.name)
    data_set = _data_at_hand(run)
    if data_set is not None:
        check_not_learnt(splits, data_set)
    patients = {patient for split in splits.values() for patient in named_patients(split)}
    # The weights that a run starts from have learnt from patients, too.
    source = detector.config.init_from
    for folder in [run, Workdir(source)] if source else [run]:
        membership.warn_of_names(folder, patients, site.name, "they make the results too good")
    return dataclasses.replace(prepared, data_set=data_set)


def prepare_exported(file: Path, output: str | os.PathLike[str], site: Site) -> SiteEvaluation:
    """Prepares the evaluation of an exported file, whose results go to the folder `output`.

    Raises:
        UserError: see `prepare_run`; or `output` is missing or the folder of a run.
    """
    if not output:
        raise UserError("--output: missing; name a folder for the results of this file.")
    folder = Workdir(output)
    if folder.config.exists() or folder.study.exists():
        raise UserError(f"--output={output}: holds a run or a study; choose another folder.")
    detector = exported.load(file)
    digest = exported.digest(file.read_bytes())
    return _prepare(folder, file, detector, detector.calibration_set, site, digest)


def _prepare(
    folder: Workdir,
    source: Path,
    detector: Detector,
    normals: CalibrationSet | None,
    site: Site,
    file_digest: str,
) -> SiteEvaluation:
    """Checks the calibration of a detector, reads the site's data and checks their names."""
    if site.calibrates:
        normals = None
    elif normals is None or normals.checkpoint_step != detector.step:
        reason = "has no calibration"
        if normals is not None:
            steps = f"{normals.checkpoint_step}, not {detector.step}"
            reason = f"its calibration was made with checkpoint {steps}"
        raise UserError(
            f"'{source}': {reason}; evaluate the run with --mode=evaluate first (and export it "
            "again), or calibrate on the other site with --test.calibrate=True."
        )
    all_metrics = metrics.load_metrics(detector.config)
    splits = read_site(site, detector.config.data)
    membership.check_processes_read_same(site.name, splits.with_normals(site.name))
    _check_names(folder, splits, site.digest(file_digest))
    return SiteEvaluation(
        folder, detector, all_metrics, normals, site, splits, None, file_digest
    )  # fmt: skip


def _check_names(folder: Workdir, splits: SiteSplits, digest: str) -> None:
    """Raises a UserError if results of other data or of another detector would be overwritten."""
    for name in splits.tests:
        path = folder.evaluation(name) / "metrics.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8")).get(EXTERNAL, {})
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"'{path}' cannot be read ({error}); delete it.") from error
        if stored.get("digest") != digest:
            raise UserError(
                f"'{path.parent}': holds the evaluation of other data ('{stored.get('root', '')}') "
                "or of another detector; choose another name with --test.as=<name>, or delete it."
            )


def _data_at_hand(run: Workdir) -> DataSet | None:
    """Returns the data set of a run; None, with a warning, if it is gone or has changed.

    Every process must call it.
    """
    data_set = None
    try:
        # What was said of these data in training is not repeated beside the site's own.
        with messages.without_details("jaxad.data"):
            data_set = DataSet(run_config.read(run).data)
            for name in TRAINING_SPLITS:
                data_set.split(name)
        membership.check(run, data_set)
    except UserError as error:
        logger.warning(
            "warning: the run's own data are not available, so there are no reference scores, and "
            f"images that it was trained on are not found among these: {error}"
        )
        data_set = None
    return data_set if all(processes.of_all(data_set is not None)) else None
