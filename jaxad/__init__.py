"""jaxad: anomaly detection in medical images, learnt from normal images only.

    import jaxad

    config = jaxad.get_config("pchvae:demo")
    jaxad.fit(config, "runs/demo")
    detector = jaxad.load("runs/demo")
    scores = detector.score(images)

Importing the package is cheap; what a function needs is imported when it is called.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxad.evaluate.conformal import Calibration
    from jaxad.scorer import Scorer

__all__ = ["__version__", "fit", "get_config", "load", "load_calibration", "write_report"]
__version__ = "0.1.0"


def get_config(name: str) -> "ConfigDict":
    """The config of this name, such as `pchvae:demo`; see `jaxad.config.get_config`."""
    from jaxad import config

    return config.get_config(name)


def fit(config: "ConfigDict", workdir: str | os.PathLike[str]) -> bool:
    """Trains, evaluates every test split and writes the report; see `jaxad.run.fit`."""
    from jaxad import run

    return run.fit(config, workdir)


def load(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> "Scorer":
    """The detector of a run's folder, or of a file that `--mode=export` wrote.

    See `jaxad.detector.load` and `jaxad.exported.load`; a file has one checkpoint, the last.
    """
    if Path(path).expanduser().is_file():
        from jaxad import exported

        return exported.load(Path(path).expanduser())
    from jaxad import detector

    return detector.load(path, checkpoint)


def load_calibration(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> "Calibration":
    """p-values and thresholds for a run's scores; see `jaxad.evaluate.conformal.Calibration`."""
    from jaxad.evaluate import decisions

    return decisions.load_calibration(path, checkpoint)


def write_report(
    workdir: str | os.PathLike[str], compare: Sequence[str | os.PathLike[str]] = ()
) -> Path:
    """Writes `report.html` of a run from its files, beside other runs; gives its path.

    See `jaxad.report.page.write_report`.
    """
    from jaxad.report import page
    from jaxad.workdir import Workdir

    return page.write_report(Workdir(workdir), [Workdir(other) for other in compare])
