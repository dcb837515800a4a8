"""The modes, each as a function of its name, that the command line and `jaxad.api` call.

`jaxad.command.MODES` describes them.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxad.calibration.calibration_set import read_calibration_set
from jaxad.config import is_study, representatives, run_config
from jaxad.config.model import make_model, pixels_per_device
from jaxad.data import membership
from jaxad.data.files.unread import tell_unread
from jaxad.data.inspection import inspect as inspect_data
from jaxad.data.inspection import leak_remedy, write_duplicates
from jaxad.data.leaks import TRAINING_SPLITS, named_patients
from jaxad.data.other_site import Site, check_not_learnt, parse_classes, read_site
from jaxad.data.replay import read_normals
from jaxad.data.sources import DataSet
from jaxad.detector import exported
from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.evaluate.evaluation import calibrate as calibrate_run
from jaxad.evaluate.evaluation import evaluate_splits, restore_same
from jaxad.evaluate.metrics import load_metrics
from jaxad.evaluate.site_evaluation import check_names, usable_calibration
from jaxad.evaluate.site_evaluation import evaluate_site as evaluate_on_site
from jaxad.report.contact_sheet import data_set_sheet
from jaxad.report.figures import to_png
from jaxad.report.page import write_report
from jaxad.runtime import interrupts, processes
from jaxad.runtime.compilation_cache import enable_compilation_cache
from jaxad.runtime.malloc import keep_freed_memory
from jaxad.runtime.messages import print_warnings_only
from jaxad.runtime.parallel import split_cpu, warn_of_crowded_cpu
from jaxad.storage.home import cache_folder
from jaxad.storage.paths import expand
from jaxad.storage.workdir import Workdir, atomic_write, write_json
from jaxad.train import checks, initial_weights
from jaxad.train.loop import train as train_run
from jaxad.types import FittedModel

logger = logging.getLogger(__name__)


def configure_process(mode: str, config: ConfigDict | None) -> None:
    """Configures JAX, malloc, and messages; for a process that runs one command.

    Call it before any computation.

    Args:
        mode: one of `jaxad.command.MODES`.
        config: the config of the run or study; None if an exported file is scored.
    """
    configs, seeds_per_program = [], 1
    if config is not None:
        configs = representatives(config) if is_study(config) else [config]
        seeds_per_program = int(config.get("seeds_per_program", 1))
        split_cpu(configs[0].cpu_devices)
    if mode != "profile":  # which measures compile times
        enable_compilation_cache(cache_folder)
    if not processes.is_first():
        print_warnings_only()
    pixels = [seeds_per_program * pixels_per_device(config) for config in configs]
    keep_freed_memory(max(pixels, default=None))
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
    run = _open_run(config, workdir, trains=True)
    data_set = _open_to_train(config, run)
    with run.lock():
        _train(config, run, data_set)


def evaluate(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] = "",
    **site: str,
) -> None:
    """Evaluates the last checkpoint of a run on every test split and writes the report.

    The fields of `config.evaluate` that affect only an evaluation may differ from those of the run,
    and are stored as its new ones.

    Args:
        config: the config of the run; None for an exported file.
        workdir: the folder of the run, or an exported file, which needs `test_root` and `output`.
        output: for an exported file: the folder of the results.
        **site: if `test_root` is given, only this data set of another site is evaluated; the
            options `--test.*`, with `_` instead of the dot.
    """
    if site.get("test_root"):
        evaluate_site(config, workdir, _site_of(**site), output=output)
        return
    if given := next((name for name, value in site.items() if value), ""):
        raise UserError(
            f"--{given.replace('_', '.', 1)}: belongs to another site's data; name them with "
            "--test.root."
        )
    if config is None:
        raise UserError(
            f"--workdir={workdir}: an exported file has no data of its own; name labelled data "
            "with --test.root."
        )
    if output:
        raise UserError("--output: the results of a run go to its eval/; leave it out.")
    run = _open_run(config, workdir, evaluates=True)
    load_metrics(config)
    data_set = DataSet(config.data)
    data_set.check()
    membership.check_processes(data_set)
    with run.lock():
        _store_evaluation(run, config)
        _evaluate(run, data_set)


def _site_of(
    *,
    test_root: str,
    test_name: str = "",
    test_as: str = "",
    test_calibrate: str = "",
    test_group_pattern: str = "",
    test_normal_classes: str = "",
    test_on_error: str = "",
    test_allow_outside_root: str = "",
) -> Site:
    """Returns the site that the options of the command line describe."""
    changes: dict[str, Any] = {
        "allow_outside_root": _truth("test.allow_outside_root", test_allow_outside_root)
    }
    if test_group_pattern:
        changes["group_pattern"] = test_group_pattern
    if test_normal_classes:
        changes["normal_classes"] = parse_classes(test_normal_classes)
    if test_on_error:
        changes["on_error"] = test_on_error
    calibrates = _truth("test.calibrate", test_calibrate)
    return Site(test_root, test_name, test_as, calibrates, changes)


def evaluate_site(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    site: Site,
    *,
    output: str | os.PathLike[str] = "",
) -> Path:
    """Evaluates a run or an exported file on another site's labelled data; writes the report.

    Args:
        config: the config of the run; None for an exported file.
        workdir: the folder of the run, or the exported file.
        site: the data.
        output: the folder of the results of an exported file; those of a run go to its `eval/`.

    Returns:
        The folder that holds `eval/<name>/` and the report.

    Raises:
        UserError: the site's data are unusable (see `read_site`), images of them were learnt from,
            or the name is that of another evaluation.
        RunError: a score is not finite, or a metric fails.
    """
    source = expand(workdir, "--workdir")
    if config is None:
        if not output:
            raise UserError("--output: missing; name a folder for the results of this file.")
        folder = Workdir(output)
        if folder.config.exists() or folder.study.exists():
            raise UserError(f"--output={output}: holds a run or a study; choose another folder.")
        detector: Detector = exported.load(source)
        normals, name = detector.calibration_set, exported.digest(source.read_bytes())
    else:
        if output:
            raise UserError("--output: the results of a run go to its eval/; leave it out.")
        folder, name = _open_run(config, workdir), ""
        detector = restore_same(folder)
        normals = read_calibration_set(folder.calibration)
    if not site.calibrates:
        normals = usable_calibration(normals, detector, source)
    splits = read_site(site, detector.config.data)
    membership.check_processes_read_same(site.name, splits.with_normals(site.name))
    check_names(folder, site, splits, name)
    data_set = None if config is None else _data_at_hand(config, folder)
    if data_set is not None:
        check_not_learnt(splits.with_normals(site.name), data_set)
    patients = {patient for split in splits.with_normals("").values()
                for patient in named_patients(split)}  # fmt: skip
    membership.warn_of_names(folder, patients, site.name, "they make the results too good")
    folder.check_writable()
    with folder.lock():
        evaluate_on_site(folder, detector, normals, site, splits, data_set, name)
        if processes.is_first():
            logger.info(f"report: {write_report(folder, config=detector.config)}")
        processes.barrier("evaluated")
    return folder.path


def _data_at_hand(config: ConfigDict, run: Workdir) -> DataSet | None:
    """Returns the data set of a run; None, with a warning, if it is gone or has changed.

    Every process must call it.
    """
    data_set = None
    try:
        data_set = DataSet(config.data)
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


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Trains a run, evaluates it, and writes the report; see `train` and `evaluate`."""
    run = _open_run(config, workdir, evaluates=True, trains=True)
    data_set = _open_to_train(config, run)
    with run.lock():
        _store_evaluation(run, config)
        _train(config, run, data_set)
        _evaluate(run, data_set)


def _open_run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    evaluates: bool = False,
    trains: bool = False,
) -> Workdir:
    """Opens the folder of a run; every process must call it."""
    run = Workdir(workdir)
    run_config.check(run, config, evaluates=evaluates, trains=trains)
    split_cpu(config.cpu_devices)
    processes.check_shared(run.path)
    return run


def _open_to_train(config: ConfigDict, run: Workdir) -> DataSet:
    """Checks the config, then the data: a mistake is reported before data are generated or read.

    Bad test splits are reported, too, before hours of training.
    """
    checks.check(config)
    initial_weights.check(config, run)
    load_metrics(config)
    data_set = DataSet(config.data)
    data_set.check()
    membership.check_processes(data_set)
    warn_of_crowded_cpu()
    interrupts.check()
    return data_set


def _store_evaluation(run: Workdir, config: ConfigDict) -> None:
    """Stores fields of an evaluation that follows; every process must call it."""
    if processes.is_first():
        run_config.update_evaluation(run, config)
    processes.barrier("config stored")


def _train(config: ConfigDict, run: Workdir, data_set: DataSet) -> None:
    if not train_run(config, run, data_set):
        raise interrupts.Stopped


def _evaluate(run: Workdir, data_set: DataSet) -> None:
    evaluate_splits(run, data_set)
    if processes.is_first():
        logger.info(f"report: {write_report(run)}")
    processes.barrier("evaluated")


def report(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    compare: str | Sequence[str | os.PathLike[str]] = "",
) -> None:
    """Writes the report of a run again, only from the files in its folder.

    Args:
        config: the config of the run.
        workdir: the folder of the run.
        compare: folders of other runs to show beside it, or text with commas between them.
    """
    run = Workdir(workdir)
    run_config.check(run, config)
    if isinstance(compare, str):
        is_one_folder = compare and expand(compare, "--compare").is_dir()  # names may have commas
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
) -> None:
    """Calibrates the decisions of a run on normal images of another site.

    Args:
        config: the config of the run.
        workdir: the folder of the run.
        normals: an .npz file, or, for a run on files, a folder, a table, or a file; see
            `docs/data.md`. `group` or `config.data.group_pattern` gives the patients.
        allow_outside_root: whether a table may name files outside its folder, by absolute paths.
    """
    allows = _truth("allow_outside_root", allow_outside_root)
    run, path = Workdir(workdir), expand(normals, "--normals")
    run_config.check(run, config)
    split_cpu(config.cpu_devices)
    split = read_normals(path, config.data, allow_outside_root=allows)
    membership.warn_of_names(
        run, set(split.groups), f"--normals={path}",
        "they make the false-positive rate larger than promised",
    )  # fmt: skip
    with run.lock():
        calibrate_run(run, str(path), split)


def inspect(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Inspects the data; writes `inspect.json`, `inspect.png` and `duplicates.csv`.

    Raises:
        UserError: an image or a patient is in two splits; or a file cannot be read, and
            `config.data.on_error` is `raise`.
    """
    folder = Workdir(workdir).path
    inspection, data_set = inspect_data(config.data)
    splits = {name: data_set.split(name) for name in data_set.split_names}
    write_json(folder / "inspect.json", dataclasses.asdict(inspection))
    write_duplicates(folder / "duplicates.csv", inspection)
    with atomic_write(folder / "inspect.png", "wb") as file:
        file.write(to_png(data_set_sheet(splits)))
    logger.info("\n".join([*inspection.lines(), f"contact sheet: {folder / 'inspect.png'}"]))
    if inspection.leaks:
        leaks = " | ".join(map(str, inspection.leaks))
        raise UserError(f"{config.data.name}: splits leak: {leaks}. {leak_remedy(data_set)}")
    if inspection.skipped and config.data.on_error == "raise":
        raise UserError(
            f"{config.data.name}: {len(inspection.skipped)} bad files, listed above; repair or "
            "remove them, or leave them out with --config.data.on_error=skip."
        )
    for unread in data_set.unread:
        if config.data.on_error == "raise" and unread.others:
            tell_unread(unread, is_strict=True)


def export(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Exports the detector of a run to one file, `detector.jaxad`, which scores without the run."""
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
    """
    from jaxad.detector.calibrated import load_calibrated
    from jaxad.score.files import score_files

    allows = _truth("allow_outside_root", allow_outside_root)
    path = expand(workdir, "--workdir")
    if config is not None:
        split_cpu(config.cpu_devices)
    detector = load_calibrated(path, None if rate == "" else _number("rate", rate))
    source, target = expand(input, "--input"), expand(output, "--output")
    name = f"{path.resolve()} at step {detector.detector.step}"
    if path.is_file():
        name = exported.digest(path.read_bytes())
    score_files(
        detector, source, target, which_maps=maps or "all", name=name, allow_outside_root=allows
    )


def _number(flag: str, text: str | int | float) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: not a number.") from error


def _truth(flag: str, value: str | bool) -> bool:
    text = str(value or False).lower()
    if text not in ("true", "false"):
        raise UserError(f"--{flag}={value}: write True or False.")
    return text == "true"


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

    count = 30.0 if steps == "" else _number("steps", steps)
    if count < 1 or count != int(count):
        raise UserError(f"--steps={steps}: not a whole number of at least 1.")
    run = Workdir(workdir)
    run_config.check(run, config)
    split_cpu(config.cpu_devices)
    if isinstance(make_model(config), FittedModel):
        raise UserError(
            f"--mode=profile: '{config.model.name}' is fitted in one pass and has no updates to "
            "profile; name another config.model.name."
        )
    data_set = _open_to_train(config, run)
    with run.lock(), run.replaced(run.profile) as folder:
        measured = profile_training(config, data_set.split("train"), folder, int(count))
        text = format_profile(measured)
        write_json(folder / "profile.json", measured.as_json())
        with atomic_write(folder / "profile.txt") as file:
            file.write("\n".join(text) + "\n")
    logger.info("\n".join([*text, "", f"profile: {run.profile}"]))
