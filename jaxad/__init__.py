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
    import numpy as np
    from jaxtyping import Shaped
    from matplotlib.figure import Figure
    from ml_collections import ConfigDict

    from jaxad.data.sources import DataSet
    from jaxad.evaluate.conformal import Calibration
    from jaxad.scorer import Scorer
    from jaxad.types import Scores

__all__ = [
    "__version__",
    "contact_sheet",
    "explain",
    "export_detector",
    "fit",
    "get_config",
    "inspect_data",
    "load",
    "load_calibration",
    "load_data",
    "run_study",
    "score_files",
    "write_report",
]
__version__ = "0.1.0"


def get_config(name: str) -> "ConfigDict":
    """The config of this name, such as `pchvae:demo`; see `jaxad.config.get_config`."""
    from jaxad import config

    return config.get_config(name)


def load_data(config: "ConfigDict") -> "DataSet":
    """The data of a run, opened and where needed generated; see `jaxad.data.sources.DataSet`.

    Its `split_names` tells what there is, `split("train")` reads one: a `jaxad.types.Split`.

    Args:
        config: of the run.

    Raises:
        UserError: there is no such data set, or it is not where the config says.
    """
    from jaxad.data.sources import DataSet

    return DataSet(config.data)


def inspect_data(config: "ConfigDict", workdir: str | os.PathLike[str]) -> bool:
    """Looks at the data before they are trained on, as `--mode=inspect`; see `jaxad.run.inspect`.

    Args:
        config: of the run to come.
        workdir: a folder for `inspect.json` and the contact sheet, `inspect.png`.

    Raises:
        UserError: an image or a patient is in two splits, or a file cannot be read.
    """
    from jaxad import run

    return run.inspect(config, workdir)


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
    from jaxad.paths import expand

    place = expand(path)
    if place.is_file():
        from jaxad import exported

        return exported.load(place)
    from jaxad import detector

    return detector.load(place, checkpoint)


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

    run = Workdir(workdir)
    run.read_config()  # no run, no lock in its folder
    with run.lock():
        return page.write_report(run, [Workdir(other) for other in compare])


def explain(
    path: str | os.PathLike[str],
    scores: "Scores",
    rate: float | None = None,
    checkpoint: Literal["last", "best"] | int = "last",
) -> "dict[str, Shaped[np.ndarray, ' n']]":
    """What scores mean against normal images: p-values, decisions and what drove each score.

    Args:
        path: a run's folder or an exported file.
        scores: of N images, as its detector gave them.
        rate: of false positives among normal patients; by default the run's, or the smallest that
            its normal images support.
        checkpoint: that gave the scores, as in `load`. Where another one was evaluated there are no
            p-values and decisions, which a line on stderr says.

    Returns:
        Columns by name, each [N], as `--mode=score` writes them: `score`, `p_value`, `anomalous`,
        `driver`, `from_<component>` and the components; see `docs/scoring.md`.

    Raises:
        UserError: no run, or its normal images cannot support the rate.
    """
    from jaxad.paths import expand
    from jaxad.score.judge import load_judge
    from jaxad.scorer import score_columns

    return load_judge(expand(path), rate, checkpoint).table(score_columns(scores))


def contact_sheet(
    images: "np.ndarray",
    scores: "Scores",
    *,
    masks: "np.ndarray | None" = None,
    titles: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> "Figure":
    """What a detector makes of images, one a row; see `jaxad.sheet.contact_sheet`."""
    from jaxad import sheet

    return sheet.contact_sheet(images, scores, masks=masks, titles=titles, columns=columns)


def score_files(
    path: str | os.PathLike[str],
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rate: float | None = None,
    maps: Literal["all", "anomalous", "none"] = "all",
) -> bool:
    """Scores files to tables, decisions and maps, as `--mode=score`; see `docs/scoring.md`.

    Args:
        path: a run's folder (its last checkpoint) or an exported file.
        input: an image, a scan, a DICOM series, a folder or a table of them, or an `.npz` file.
        output: a folder; the same call goes on where it was stopped.
        rate: of false positives among normal patients; by default the run's.
        maps: of which images.

    Raises:
        UserError: nothing can be scored, or `output` holds the scores of something else.
    """
    from jaxad import run
    from jaxad.paths import expand
    from jaxad.workdir import Workdir

    config = None if expand(path).is_file() else Workdir(path).read_config()
    return run.score(
        config, path, input=input, output=output, rate="" if rate is None else rate, maps=maps
    )


def export_detector(workdir: str | os.PathLike[str]) -> Path:
    """Writes a run's detector to one file that scores by itself, as `--mode=export`.

    Returns:
        The file, `detector.jaxad` in the run's folder; `load` takes it.

    Raises:
        UserError: there is no run, or it has no checkpoint yet.
    """
    from jaxad import run
    from jaxad.workdir import Workdir

    folder = Workdir(workdir)
    run.export(folder.read_config(), workdir)
    return folder.exported


def run_study(config: "ConfigDict", workdir: str | os.PathLike[str]) -> bool:
    """Does every run of a study that is not finished and writes its tables, as `--mode=study`.

    `table.md` is written and, unlike there, not printed.

    Args:
        config: of many runs, such as `get_config("studies/pchvae_table1:demo")`.
        workdir: the study's folder; the same call goes on where it was stopped.

    Returns:
        True when all is done, False when SIGTERM ended it early.

    Raises:
        UserError: the config cannot be, or the folder holds something else.
        RunError: runs failed; the tables are written without them.
    """
    from jaxad import run

    return run.study(config, workdir, print_table=False)
