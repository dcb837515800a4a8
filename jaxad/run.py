"""The modes as functions, which the command line and `jaxad.api` call; see `command.MODES`.

Each imports inside its function what training does not need: evaluation and the report load
scikit-learn, SciPy's statistics and Matplotlib, so that training starts without them.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxad.config import is_study, representatives, run_config
from jaxad.config.flags import parse_bool, parse_number
from jaxad.config.model import make_model
from jaxad.data import membership
from jaxad.data.other_site import Site, site_of_flags
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.opening import open_data, open_run, open_to_train
from jaxad.runtime import interrupts, processes
from jaxad.runtime.compilation_cache import enable_compilation_cache
from jaxad.runtime.messages import print_warnings_only
from jaxad.runtime.parallel import split_cpu
from jaxad.storage import history
from jaxad.storage.home import compiled_folder
from jaxad.storage.locations import locate, locate_data
from jaxad.storage.workdir import Workdir, atomic_write, write_json
from jaxad.train.loop import train as train_run
from jaxad.train.tracking import tracked
from jaxad.types import FittedModel

logger = logging.getLogger(__name__)


def configure_process(mode: str, config: ConfigDict | None) -> None:
    """Configures JAX and messages before any computation, in a process of one command.

    Args:
        mode: one of `jaxad.command.MODES`.
        config: the config of the run or study; None if an exported file is scored.
    """
    if config is not None:
        first = representatives(config)[0] if is_study(config) else config
        split_cpu(first.cpu_devices)
    if mode != "profile":  # which measures compile times
        enable_compilation_cache(compiled_folder)
    if not processes.is_first():
        print_warnings_only()
    interrupts.check()


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Trains or fits a run, from its last checkpoint if there is one.

    Args:
        config: the config of the run; `config.train.num_epochs` may be larger than before.
        workdir: the folder of the run, created if needed.

    Raises:
        UserError: the config or the data have a mistake, or the folder holds something else.
        RunError: training failed.
        Stopped: a signal ended training early; a checkpoint was saved.
    """
    run, config = open_run(config, workdir, trains=True)
    data_set = open_to_train(config, run)
    with run.lock(), tracked([config], [run]):
        _train(config, run, data_set)


def evaluate(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] = "",
    **site: str,
) -> None:
    """Evaluates the last checkpoint of a run on every test split and writes the report.

    Fields that affect only evaluations may differ from the run's, and are stored as its new ones.

    Args:
        config: the config of the run; None for an exported file.
        workdir: the folder of the run, or an exported file, which needs `test_root` and `output`.
        output: for an exported file: the folder of the results.
        **site: the flags `--test.*`, with `_` instead of the dot: if `test_root` is given, only
            this data set of another site is evaluated.
    """
    if site.get("test_root"):
        evaluate_site(config, workdir, site_of_flags(site), output=output)
        return
    if unused := [name for name, value in {**site, "output": output}.items() if value]:
        flag = unused[0].replace("_", ".", 1)
        raise UserError(f"--{flag}: belongs to another site's data; name them with --test.root.")
    if config is None:
        raise UserError(f"--workdir={workdir}: an exported file needs data; give --test.root.")
    run, config = open_run(config, workdir, evaluates=True)
    data_set = open_data(config)
    with run.lock(), tracked([config], [run]):
        _store_evaluation(run, config)
        _evaluate(run, data_set)


def evaluate_site(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    site: Site,
    *,
    output: str | os.PathLike[str] = "",
) -> Path:
    """Evaluates a run or an exported file on another site's labelled data; writes the report.

    Args:
        config: the config of the run; None for an exported file. Fields that affect only
            evaluations may differ from the run's; they are not stored.
        workdir: the folder of the run, or the exported file.
        site: the data.
        output: the folder of the results of an exported file; those of a run go to its `eval/`.

    Returns:
        The folder that holds `eval/<name>/` and the report.

    Raises:
        UserError: see `prepare_run` and `prepare_exported`.
        RunError: a score is not finite, or a metric fails.
    """
    from jaxad.evaluate.site_evaluation import prepare_exported, prepare_run

    if config is None:
        evaluation = prepare_exported(locate(workdir, "--workdir"), output, site)
    elif output:
        raise UserError("--output: the results of a run go to its eval/; leave it out.")
    else:
        run, config = open_run(config, workdir, evaluates=True)
        evaluation = prepare_run(run, config, site)
    folder = evaluation.folder
    folder.check_writable()
    with folder.lock():
        evaluation.write()
        _report_evaluation(folder, evaluation.detector.config)
    return folder.path


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Trains a run, evaluates it, and writes the report; see `train` and `evaluate`."""
    run, config = open_run(config, workdir, evaluates=True, trains=True)
    data_set = open_to_train(config, run)
    with run.lock(), tracked([config], [run]):
        _store_evaluation(run, config)
        _train(config, run, data_set)
        _evaluate(run, data_set)


def _store_evaluation(run: Workdir, config: ConfigDict) -> None:
    """Stores fields of an evaluation that follows; every process must call it."""
    if processes.is_first():
        run_config.update_evaluation(run, config)
    run.barrier("config stored")


def _train(config: ConfigDict, run: Workdir, data_set: DataSet) -> None:
    if not train_run(config, run, data_set):
        raise interrupts.Stopped


def _evaluate(run: Workdir, data_set: DataSet) -> None:
    from jaxad.evaluate.evaluation import evaluate_splits

    with history.evaluation(run, data_set.test_split_names):
        evaluate_splits(run, data_set)
    _report_evaluation(run)


def _report_evaluation(folder: Workdir, config: ConfigDict | None = None) -> None:
    from jaxad.report.page import write_report

    if processes.is_first():
        logger.info(f"report: {write_report(folder, config=config)}")
    folder.barrier("evaluated")


def report(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    compare: str | Sequence[str | os.PathLike[str]] = "",
) -> None:
    """Writes the report of a run again, only from the files in its folder.

    Args:
        config: the config of the run.
        workdir: its folder.
        compare: folders of other runs to show beside it, or text with commas between them.
    """
    from jaxad.report.page import write_report

    run = Workdir(workdir)
    run_config.check(run, config)
    if isinstance(compare, str):
        is_one_folder = compare and locate(compare, "--compare").is_dir()  # names may have commas
        compare = [compare] if is_one_folder else compare.split(",")
    others = [Workdir(str(folder).strip()) for folder in compare if str(folder).strip()]
    with run.lock():
        logger.info(f"report: {write_report(run, others)}")


def study(config: ConfigDict, workdir: str | os.PathLike[str], *, print_table: bool = True) -> None:
    """Trains and evaluates every run of a study and writes its tables.

    Raises:
        Stopped: a signal ended a training early; a checkpoint was saved.
    """
    from jaxad.study.runner import run_study

    if not run_study(config, workdir, print_table=print_table):
        raise interrupts.Stopped


def calibrate(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    normals: str | os.PathLike[str],
    allow_outside_root: str | bool = "",
    group_pattern: str = "",
) -> None:
    """Calibrates the decisions of a run on normal images of another site.

    Args:
        config: the config of the run.
        workdir: the folder of the run.
        normals: an .npz file, or, for a run on files, a folder, a table, or a file; see
            `docs/data.md`.
        allow_outside_root: whether a table may name files outside its folder, by absolute paths.
        group_pattern: finds the patient in a file's path; "": as for the run.
    """
    from jaxad.data.replay import read_normals
    from jaxad.evaluate.evaluation import calibrate as calibrate_run

    allows = parse_bool("allow_outside_root", allow_outside_root)
    run, path = Workdir(workdir), locate_data(normals, "--normals")
    config = run_config.check(run, config)
    split_cpu(config.cpu_devices)
    split = read_normals(path, config.data, allow_outside_root=allows, group_pattern=group_pattern)
    membership.warn_of_names(
        run, set(split.groups), f"--normals={path}",
        "they make the false-positive rate larger than promised",
    )  # fmt: skip
    with run.lock():
        calibrate_run(run, f"{path}", split)


def inspect(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Inspects the data; writes `inspect.json`, `inspect.png` and `duplicates.csv`.

    Raises:
        UserError: an image or a patient is in two splits; or a file cannot be read, and
            `config.data.on_error` is `raise`.
    """
    from jaxad.data.files.unread import check_no_data_in
    from jaxad.data.inspection import check as check_inspection
    from jaxad.data.inspection import inspect as inspect_data
    from jaxad.report.inspection import write_inspection

    folder = Workdir(workdir)
    check_no_data_in(folder.path)
    inspection, data_set = inspect_data(config.data)
    folder.check_writable()
    with folder.lock():
        sheet = write_inspection(folder.path, inspection, data_set)
    logger.info("\n".join([*inspection.lines(), f"contact sheet: {sheet}"]))
    check_inspection(inspection, data_set, config.data.on_error)


def export(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Exports the detector of a run to one file, `detector.jaxad`, which scores without the run."""
    from jaxad.detector import exported
    from jaxad.detector.export import export as export_run

    run = Workdir(workdir)
    run_config.check(run, config)
    with run.lock():
        path = export_run(run)
    exported.load(path)  # fails now if it cannot be loaded
    logger.info(f"exported: {path} ({path.stat().st_size / 2**20:.1f} MiB)")


def score(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    *,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    rate: str | float = "",
    maps: str = "",
    allow_outside_root: str | bool = "",
    group_pattern: str = "",
) -> None:
    """Scores files with the last checkpoint of a run or with an exported file.

    Args:
        config: the config of the run; None for an exported file.
        workdir: the folder of the run, or the exported file.
        input: an image, a scan, a DICOM series, a folder or a table of them, or an .npz file.
        output: the folder of tables and maps; the same call resumes where it was stopped.
        rate: false-positive rate among normal patients, by default the run's.
        maps: the images to write maps of: `all`, `anomalous`, or `none`.
        allow_outside_root: whether a table may name files outside its folder, by absolute paths.
        group_pattern: finds the patient in a file's path; "": as for the run.
    """
    from jaxad.detector import exported
    from jaxad.detector.calibrated import load_calibrated
    from jaxad.score.files import check_flags, score_files

    allows = parse_bool("allow_outside_root", allow_outside_root)
    path = locate(workdir, "--workdir")
    source, target = locate_data(input, "--input"), locate(output, "--output")
    number = None if rate == "" else parse_number("rate", rate, "a share, such as 0.05 for 5 %")
    check_flags(source, maps or "all")
    if config is not None:
        split_cpu(config.cpu_devices)
    detector = load_calibrated(path, number)
    name = f"{path.resolve()} at step {detector.detector.step}"
    if path.is_file():
        name = exported.digest(path.read_bytes())
    score_files(
        detector, source, target, which_maps=maps or "all", name=name, allow_outside_root=allows,
        group_pattern=group_pattern, run=None if path.is_file() else Workdir(path),
    )  # fmt: skip


def profile(config: ConfigDict, workdir: str | os.PathLike[str], *, steps: str | int = "") -> None:
    """Profiles the updates of a config; writes `profile/` in the folder and nothing else.

    Args:
        config: the config.
        workdir: a folder; it may hold a run of this config.
        steps: how many updates of each phase to time, with and without overlap; 30 by default.

    Raises:
        UserError: the config or the data have a mistake, or the model is fitted in one pass.
    """
    from jaxad.profile.profiling import profile_training
    from jaxad.profile.table import format_profile

    count = 30.0 if steps == "" else parse_number("steps", steps, "a whole number, such as 30")
    if count < 1 or count != int(count):
        raise UserError(f"--steps={steps}: not a whole number of at least 1.")
    run = Workdir(workdir)
    config = run_config.check(run, config)
    split_cpu(config.cpu_devices)
    if isinstance(make_model(config), FittedModel):
        raise UserError(
            f"--mode=profile: '{config.model.name}' is fitted in one pass and has no updates to "
            "profile; name another config.model.name."
        )
    data_set = open_to_train(config, run)
    with run.lock(), run.replaced(run.profile) as folder:
        measured = profile_training(config, data_set.split("train"), folder, int(count))
        text = format_profile(measured)
        write_json(folder / "profile.json", measured.as_json())
        with atomic_write(folder / "profile.txt") as file:
            file.write("\n".join(text) + "\n")
    logger.info("\n".join([*text, "", f"profile: {run.profile}"]))
