"""What each mode does; the command line and `jaxad.api` both call these functions."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from jaxad.config import is_study, representatives, run_config
from jaxad.data import membership
from jaxad.data.files.folders import SEVERAL_UNDER_ONE_NAME
from jaxad.data.files.unread import tell_unread
from jaxad.data.inspection import inspect as inspect_data
from jaxad.data.replay import read_normals
from jaxad.data.sources import DataSet, is_of_files, is_published, published
from jaxad.detector import exported
from jaxad.errors import UserError
from jaxad.evaluate.evaluation import calibrate as calibrate_run
from jaxad.evaluate.evaluation import evaluate_splits
from jaxad.evaluate.metrics import load_metrics
from jaxad.report.contact_sheet import data_set_sheet
from jaxad.report.figures import to_png
from jaxad.report.page import write_report
from jaxad.runtime import interrupts, processes
from jaxad.runtime.compilation import keep_programs
from jaxad.runtime.host_memory import keep_freed_memory
from jaxad.runtime.messages import print_warnings_only
from jaxad.runtime.parallel import split_cpu, warn_of_crowded_cpu
from jaxad.storage.paths import expand
from jaxad.storage.user_folders import user_cache
from jaxad.storage.workdir import Workdir, atomic_write, write_json
from jaxad.train import experiment
from jaxad.train.loop import train as train_run

logger = logging.getLogger(__name__)


def configure_process(mode: str, config: ConfigDict | None) -> None:
    """Configures JAX, malloc and messages of a process that runs one command and nothing else.

    Call it before any computation.

    Args:
        mode: one of `MODES`.
        config: of the run or study; None where an exported file is scored, which is not open yet.
    """
    runs, at_once = [], 1
    if config is not None:
        runs = representatives(config) if is_study(config) else [config]
        at_once = int(config.get("seeds_per_program", 1))
        split_cpu(runs[0].cpu_devices)
    if mode != "profile":  # compile times are measured there
        keep_programs(user_cache)
    if not processes.is_first():
        print_warnings_only()
    pixels = [at_once * experiment.pixels_at_once(run) for run in runs]
    keep_freed_memory(max(pixels, default=None))
    interrupts.check()


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Trains a run, from its last checkpoint if there is one.

    Args:
        config: of the run.
        workdir: its folder; made if it is not there.

    Raises:
        UserError: the config or the data have a mistake, or the folder holds something else.
        RunError: training failed.
        Stopped: a signal ended training early; a checkpoint was saved.
    """
    run, data_set = _open_to_train(config, workdir)
    with run.lock():
        _train(config, run, data_set)


def _train(config: ConfigDict, run: Workdir, data_set: DataSet) -> None:
    if not train_run(config, run, data_set):
        raise interrupts.Stopped


def evaluate(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Evaluates the last checkpoint on every test split and writes the report."""
    run = Workdir(workdir)
    run_config.check(run, config)
    split_cpu(config.cpu_devices)
    processes.check_shared(run.path)
    data_set = DataSet(config.data)
    data_set.check()
    with run.lock():
        _evaluate(run, data_set)


def fit(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Trains, evaluates every test split and writes the report; see `train`."""
    run, data_set = _open_to_train(config, workdir)
    with run.lock():
        _train(config, run, data_set)
        _evaluate(run, data_set)


def _open_to_train(config: ConfigDict, workdir: str | os.PathLike[str]) -> tuple[Workdir, DataSet]:
    """The folder and the data, after every check that needs no training."""
    run = Workdir(workdir)
    run_config.check(run, config)
    split_cpu(config.cpu_devices)
    processes.check_shared(run.path)
    # A config that cannot be is reported before data are generated for it, and a bad test split
    # before hours of training.
    experiment.check(config)
    load_metrics(config)
    data_set = DataSet(config.data)
    data_set.check()
    warn_of_crowded_cpu()
    interrupts.check()
    return run, data_set


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
    """Writes the report of a run again, from the files in its folder alone.

    Args:
        config: the run's.
        workdir: its folder.
        compare: folders of other runs to set beside it; as text separated by commas.
    """
    run = Workdir(workdir)
    run_config.check(run, config)
    if isinstance(compare, str):
        is_one = compare and expand(compare, "--compare").is_dir()  # names may have commas
        compare = [compare] if is_one else compare.split(",")
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
    config: ConfigDict, workdir: str | os.PathLike[str], *, normals: str | os.PathLike[str]
) -> None:
    """Calibrates a run's decisions on normal images of another site.

    Args:
        config: the run's.
        workdir: its folder.
        normals: an .npz file, or for a run on files a folder, a table or a file; see
            `docs/data.md`. `group`, or `config.data.group_pattern`, tells patients apart.
    """
    run, path = Workdir(workdir), expand(normals, "--normals")
    run_config.check(run, config)
    split_cpu(config.cpu_devices)
    split = read_normals(path, config.data)
    membership.warn_of_names(run, split, f"--normals={path}")
    with run.lock():
        calibrate_run(run, str(path), split)


def inspect(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Looks at the data before they are trained on; writes `inspect.json` and `inspect.png`.

    Raises:
        UserError: an image or a patient is in two splits; or a file cannot be read, and
            `config.data.on_error` is `raise`.
    """
    folder = Workdir(workdir).path
    found, data_set = inspect_data(config.data)
    splits = {name: data_set.split(name) for name in data_set.split_names}
    write_json(folder / "inspect.json", found.as_json())
    with atomic_write(folder / "inspect.png", "wb") as file:
        file.write(to_png(data_set_sheet(splits)))
    logger.info("\n".join([*found.lines(), f"contact sheet: {folder / 'inspect.png'}"]))
    remedy = "Keep each patient in one split, and of images that are the same one."
    if is_of_files(config.data.name):
        remedy += f" {SEVERAL_UNDER_ONE_NAME}"
    if is_published(config.data.name) and published(config.data.name).SHARES_PATIENTS:
        remedy = "As published; --config.data.regroup=True learns from none that is tested."
    if found.leaks:
        raise UserError(
            f"{config.data.name}: splits leak: {' | '.join(map(str, found.leaks))}. {remedy}"
        )
    if found.skipped and config.data.on_error == "raise":
        raise UserError(
            f"{config.data.name}: {len(found.skipped)} bad files, listed above; repair or remove "
            "them, or leave them out with --config.data.on_error=skip."
        )
    for unread in data_set.unread:
        if config.data.on_error == "raise" and unread.others:
            tell_unread(unread, is_strict=True)


def export(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Writes the run's detector to one file that scores by itself, `detector.jaxad`."""
    from jaxad.detector.export import export as export_run

    run = Workdir(workdir)
    run_config.check(run, config)
    with run.lock():
        path = export_run(run)
    exported.load(path)  # it is worth nothing where it does not load
    logger.info(f"exported: {path} ({path.stat().st_size / 2**20:.1f} MiB)")


def score(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    *,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    rate: str | float = "",
    maps: str = "",
) -> None:
    """Scores files with a run's last checkpoint, or with an exported file.

    Args:
        config: the run's; None for an exported file.
        workdir: the run's folder, or the file.
        input: an image, a scan, a DICOM series, a folder or a table of them, or an .npz file.
        output: a folder for tables and maps; the same call goes on where it was stopped.
        rate: of false positives among normal patients; by default the run's.
        maps: of which images: `all`, `anomalous` or `none`.
    """
    from jaxad.detector.calibrated import load_calibrated
    from jaxad.score.files import score_files

    path = expand(workdir, "--workdir")
    if config is not None:
        split_cpu(config.cpu_devices)
    detector = load_calibrated(path, None if rate == "" else _number("rate", rate))
    source, target = expand(input, "--input"), expand(output, "--output")
    name = f"{path.resolve()} at step {detector.detector.step}"
    if path.is_file():
        name = exported.digest(path.read_bytes())
    score_files(detector, source, target, which_maps=maps or "all", name=name)


def _number(flag: str, text: str | int | float) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: is no number.") from error


def profile(config: ConfigDict, workdir: str | os.PathLike[str], *, steps: str | int = "") -> None:
    """Profiles the updates of a run; writes `profile/` in the folder, which stays no run's.

    Args:
        config: of the run.
        workdir: a folder, which may be a run's of this config.
        steps: updates to time in each phase, each way; 30 by default.
    """
    from jaxad.profile.profiling import profile_training
    from jaxad.profile.table import lines

    count = 30.0 if steps == "" else _number("steps", steps)
    if count < 1 or count != int(count):
        raise UserError(f"--steps={steps}: is no whole number from 1 on.")
    run = Workdir(workdir)
    run_config.check(run, config)
    split_cpu(config.cpu_devices)
    experiment.check(config)
    data_set = DataSet(config.data)
    data_set.check()
    warn_of_crowded_cpu()
    with run.lock(), run.replaced(run.profile) as folder:
        found = profile_training(config, data_set.split("train"), folder, int(count))
        text = lines(found)
        write_json(folder / "profile.json", found.as_json())
        with atomic_write(folder / "profile.txt") as file:
            file.write("\n".join(text) + "\n")
    logger.info("\n".join([*text, "", f"profile: {run.profile}"]))


MODES: Mapping[str, Callable[..., None]] = {
    "fit": fit,
    "train": train,
    "evaluate": evaluate,
    "report": report,
    "calibrate": calibrate,
    "study": study,
    "inspect": inspect,
    "export": export,
    "score": score,
    "profile": profile,
}
