"""The functions of the package: each mode of the command line, for notebooks and scripts.

`jaxad.fit` is `jaxad.api.fit`, and so on; see `jaxad.__init__`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict

from jaxad import run
from jaxad.config import run_config
from jaxad.data.other_site import Site
from jaxad.data.sources import DataSet
from jaxad.detector.detector import Detector
from jaxad.detector.load import load
from jaxad.storage.locations import locate
from jaxad.storage.workdir import Workdir, removed_if_empty


def load_data(config: ConfigDict) -> DataSet:
    """Opens the data of a run, and generates them if needed.

    Returns:
        The data set: `split_names` lists its splits, `split("train")` reads one
        (`jaxad.types.Split`).

    Raises:
        UserError: the data set is unknown, or is not where the config says.
    """
    return DataSet(config.data)


def inspect_data(config: ConfigDict, workdir: str | os.PathLike[str]) -> Path:
    """Inspects the data before training, as `--mode=inspect` does.

    Returns:
        The folder, with `inspect.json`, `duplicates.csv` and a contact sheet, `inspect.png`.

    Raises:
        UserError: an image or a patient is in two splits, or a file cannot be read.
    """
    folder = Workdir(workdir).path
    with removed_if_empty(folder):
        run.inspect(config, workdir)
    return folder


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> Detector:
    """Trains a run, evaluates it, and writes the report, as `--mode=fit` does.

    The same call in the same folder resumes from the last checkpoint. No handler, hook, or logger
    of the caller is changed, except that SIGTERM and SIGHUP save a checkpoint during training.

    Returns:
        The trained detector.

    Raises:
        UserError: the config or the data have a mistake, or the folder holds another run.
        RunError: training failed.
        KeyboardInterrupt: a signal ended training early; a checkpoint was saved.
    """
    with removed_if_empty(Workdir(workdir).path):
        run.fit(config, workdir)
    return load(workdir)


def write_report(
    workdir: str | os.PathLike[str], compare: Sequence[str | os.PathLike[str]] = ()
) -> Path:
    """Writes the report of a run again from the files in its folder, as `--mode=report` does.

    Args:
        workdir: the folder of the run.
        compare: folders of other runs to show beside it.

    Returns:
        The path of the page, `report.html`.

    Raises:
        UserError: there is no run, or a file of it is damaged.
    """
    folder = Workdir(workdir)
    run.report(run_config.read(folder), workdir, compare=compare)
    return folder.report


def score_files(
    path: str | os.PathLike[str],
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rate: float | None = None,
    maps: Literal["all", "anomalous", "none"] = "all",
    allow_outside_root: bool = False,
    group_pattern: str = "",
) -> Path:
    """Scores files to tables, decisions and maps, as `--mode=score` does; see `docs/scoring.md`.

    Args:
        path: the folder of a run, whose last checkpoint is used, or an exported file.
        input: an image, a scan, a DICOM series, a folder or a table of them, or an `.npz` file.
        output: a folder; the same call resumes where it was stopped.
        rate: false-positive rate among normal patients, by default the run's.
        maps: the images to write maps of.
        allow_outside_root: whether a table may name files outside its folder, by absolute paths.
        group_pattern: finds the patient in a file's path; "": as for the run.

    Returns:
        The path of the table with one row per image, `scores.csv` in `output`.

    Raises:
        UserError: nothing can be scored, or `output` holds other scores.
    """
    config = None if locate(path).is_file() else run_config.read(Workdir(path))
    run.score(
        config, path, input=input, output=output, rate="" if rate is None else rate, maps=maps,
        allow_outside_root=allow_outside_root, group_pattern=group_pattern,
    )  # fmt: skip
    return locate(output) / "scores.csv"


def evaluate_site(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    output: str | os.PathLike[str] = "",
    *,
    data_set: str = "",
    name: str = "",
    calibrate: bool = False,
    group_pattern: str | None = None,
    normal_classes: Sequence[str] | None = None,
    on_error: Literal["raise", "skip"] | None = None,
    allow_outside_root: bool = False,
) -> Path:
    """Evaluates a detector on labelled data of another site, without training it.

    This is what `--mode=evaluate` does with `--test.root`; see `docs/external_validation.md`.

    Args:
        path: the folder of a run, whose last checkpoint is used, or an exported file.
        root: a folder, a table or an `.npz` file, prepared as the data of the run were.
        output: for an exported file: the folder of the results.
        data_set: its `config.data.name`; by default the kind of the run's own data.
        name: the name of the results; by default that of `root`.
        calibrate: whether to calibrate decisions on the site's own `train` and `val`.
        group_pattern: finds the patient in a file's path; None: as for the run.
        normal_classes: names of normal folders or labels; None: as for the run.
        on_error: what to do with a bad file; None: as for the run.
        allow_outside_root: whether a table may name files outside its folder, by absolute paths.

    Returns:
        The folder that holds `eval/<name>/` and `report.html`.

    Raises:
        UserError: the data cannot be used, or images of them were learnt from.
        RunError: a score is not finite.
    """
    config = None if locate(path).is_file() else run_config.read(Workdir(path))
    changes: dict[str, Any] = {"group_pattern": group_pattern, "on_error": on_error}
    changes["normal_classes"] = None if normal_classes is None else tuple(normal_classes)
    changes = {field: value for field, value in changes.items() if value is not None}
    changes["allow_outside_root"] = allow_outside_root
    site = Site(os.fspath(root), data_set, name, calibrate, changes)
    with removed_if_empty(locate(output or path)):
        return run.evaluate_site(config, path, site, output=output)


def export_detector(workdir: str | os.PathLike[str]) -> Path:
    """Exports the detector of a run to one file, as `--mode=export` does.

    Returns:
        The path of the file, `detector.jaxad` in the folder of the run; `jaxad.load` loads it.

    Raises:
        UserError: there is no run, or it has no checkpoint yet.
    """
    folder = Workdir(workdir)
    run.export(run_config.read(folder), workdir)
    return folder.exported


def run_study(config: ConfigDict, workdir: str | os.PathLike[str]) -> Path:
    """Completes every run of a study and writes its tables, as `--mode=study` does.

    Args:
        config: the config of a study, such as `get_config("studies/pchvae_table1:demo")`.
        workdir: the folder of the study; the same call resumes where it was stopped.

    Returns:
        The path of the table, `table.md`.

    Raises:
        UserError: the config has a mistake, or the folder holds another study or a run.
        RunError: runs failed; the tables are written without them.
        KeyboardInterrupt: a signal ended the study early.
    """
    with removed_if_empty(locate(workdir)):
        run.study(config, workdir, print_table=False)
    return locate(workdir) / "table.md"
