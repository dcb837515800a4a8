"""Loads a detector or a calibration from a run's folder or an exported file."""

import os
from typing import TYPE_CHECKING, Literal

from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.storage.locations import locate
from jaxad.storage.workdir import Workdir

if TYPE_CHECKING:
    from jaxad.calibration.conformal import Calibration

# Imports are inside functions: scoring by an exported file needs neither flax nor Orbax.


def load(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> Detector:
    """Loads the detector of a run, or of a file that `--mode=export` wrote.

    Args:
        path: the run's folder, or the file.
        checkpoint: the checkpoint of a run: `last`, `best` (smallest validation loss; the only one
            of a model that is fitted in one pass) or a step whose checkpoint still exists; if the
            last one is damaged, the one before it is loaded, with a warning. An exported file holds
            only one.

    Raises:
        UserError: there is no run or file, no such checkpoint, or it is damaged.
    """
    place = locate(path)
    if place.is_file():
        from jaxad.detector import exported

        return exported.load(place)
    from jaxad.detector.restored import restore

    return restore(place, checkpoint)


def load_calibration(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> "Calibration":
    """Loads the calibration of a run, for the scores of one of its checkpoints.

    Args:
        path: the run's folder, or an exported file.
        checkpoint: the checkpoint that gives the scores, as in `load`.

    Raises:
        UserError: there is no run or no calibration, or it belongs to another checkpoint.
    """
    place = locate(path)
    if place.is_file():
        from jaxad.detector import exported

        normals = exported.load(place).calibration_set
        if normals is None:
            raise UserError(
                f"'{path}': has no calibration; evaluate the run, then export it again."
            )
        return normals.calibration
    from jaxad.calibration.calibration_set import read_calibration_set
    from jaxad.detector.restored import checkpoint_step

    workdir = Workdir(path)
    step = checkpoint_step(workdir, checkpoint)
    normals = read_calibration_set(workdir.calibration)
    if normals is None:
        raise UserError(
            f"workdir '{workdir.path}': has no calibration; write it with --mode=evaluate."
        )
    if normals.checkpoint_step != step:
        raise UserError(
            f"workdir '{workdir.path}': its calibration was made with checkpoint "
            f"{normals.checkpoint_step}, not {step}; --mode=evaluate and --mode=calibrate use the "
            "last one."
        )
    return normals.calibration
