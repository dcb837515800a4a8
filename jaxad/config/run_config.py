"""The config of a run, stored in the run's folder."""

import json
import logging
from pathlib import Path

from ml_collections import ConfigDict

from jaxad.config.field import Role
from jaxad.config.fields import FIELDS
from jaxad.config.text import difference, flatten, from_json, to_json
from jaxad.errors import UserError, suggest
from jaxad.extension import source_digest
from jaxad.storage.buckets import is_url
from jaxad.storage.paths import expand
from jaxad.storage.workdir import Workdir, atomic_write, write_json

logger = logging.getLogger(__name__)


def read(workdir: Workdir) -> ConfigDict:
    """The config of the run in a folder.

    Raises:
        UserError: the folder holds no run, or its config is damaged or of another version.
    """
    if workdir.study.exists():
        raise UserError(
            f"workdir '{workdir.path}' holds a study; name the folder of one of its runs, "
            "runs/<experiment>/seed_<seed>."
        )
    workdir.check_is_no_file()
    try:
        config = from_json(workdir.config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not workdir.path.exists():
            raise UserError(
                f"workdir '{workdir.path}': no such folder or file;{_suggest_beside(workdir.path)} "
                "name the folder of a run."
            ) from error
        raise UserError(
            f"workdir '{workdir.path}': holds no config.json; train there first, or name the "
            "folder of a run."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{workdir.config}' cannot be read ({error}); restore it, or name another folder."
        ) from error
    known = flatten(config)
    missing = [f"config.{field.path}" for field in FIELDS if not field.is_open_group]
    if missing := [path for path in missing if path not in known]:
        raise UserError(
            f"'{workdir.config}': has no {missing[0]}, because another version of jaxad wrote it; "
            "use that version, or train in another --workdir."
        )
    return config


def _suggest_beside(path: Path) -> str:
    """Returns a question that names a run or file like a missing one beside it; "" if none is."""
    folder = path.parent
    others = [other.name for other in folder.iterdir()] if folder.is_dir() else []
    return suggest(path.name, others, f"{folder}/")


def write(workdir: Workdir, config: ConfigDict) -> None:
    """Writes the config into a folder that has none; relative paths of data become absolute.

    Call it once every check of the config has passed: from then on the folder belongs to this run.
    In a folder that has one, a larger `config.train.num_epochs` is stored. Warns if the code of
    external objects has changed since the run began.

    Raises:
        UserError: see `check`.
    """
    check(workdir, config, trains=True)
    if workdir.config.exists():
        warn_of_changed_code(workdir)
        saved = read(workdir)
        if config.train.num_epochs > saved.train.num_epochs:
            saved.train.num_epochs = config.train.num_epochs
            _write(workdir, saved)
        return
    config = config.copy_and_resolve_references()
    for data in (config.data, config.data.test):
        if data.root and not is_url(data.root):
            # A command in any other folder then finds the data.
            data.root = str(expand(data.root, "config.data.root").absolute())
    names = (config.model.name, config.data.name, config.data.test.name)
    digests = {name: digest for name in names if (digest := source_digest(name))}
    if digests:
        write_json(workdir.sources, digests)
    _write(workdir, config)


def _write(workdir: Workdir, config: ConfigDict) -> None:
    with atomic_write(workdir.config) as file:
        file.write(to_json(config))


def warn_of_changed_code(workdir: Workdir) -> None:
    """Warns of external objects that are loaded and whose source file changed since training."""
    try:
        stored = json.loads(workdir.sources.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # a run without external objects
    for name, digest in stored.items():
        if source_digest(name) not in (None, digest):
            logger.warning(
                f"warning: workdir '{workdir.path}': the source file of '{name}' has changed since "
                "the run began; restore it, or train again in another --workdir."
            )


def copy_evaluation(source: ConfigDict, target: ConfigDict) -> None:
    """Copies fields that only change an evaluation from one config to another."""
    for field in FIELDS:
        if field.role == "evaluation":
            group, name = field.path.split(".")
            target[group][name] = source[group][name]


def update_evaluation(workdir: Workdir, config: ConfigDict) -> None:
    """Stores fields that only change an evaluation in the config of a run, if there is one.

    If any differs, evaluations of the old fields no longer count as finished. Call it with the
    folder locked, then evaluate.

    Raises:
        UserError: see `read`.
    """
    if not workdir.config.exists():
        return
    saved = read(workdir)
    if not difference(config, saved, ("evaluation",)):
        return
    copy_evaluation(config, saved)
    for path in workdir.path.glob("eval/*/metrics.json"):
        # Those of other sites, which have a calibration of their own, are not repeated.
        if not (path.parent / "calibration.json").exists():
            path.unlink()
    _write(workdir, saved)


def with_decisions(config: ConfigDict, data: ConfigDict) -> ConfigDict:
    """Returns the config with what was decided from the data where it says `auto`.

    That is the foreground alone. `data` is the `config.data` of a stored run, or `DataSet.data`.
    """
    decided = data.preprocess.foreground
    if config.data.preprocess.foreground != "auto" or decided == "auto":
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.preprocess.foreground = decided
    return config


def check(
    workdir: Workdir, config: ConfigDict, *, evaluates: bool = False, trains: bool = False
) -> ConfigDict:
    """Checks that a folder can be written and holds no run of another config.

    Returns:
        The config, with the decisions of the run in the folder; see `with_decisions`.

    Raises:
        UserError: the folder cannot be written, its name cannot be used for checkpoints, or it
            holds a study or a run of another config; see `check_same`.
    """
    workdir.check_writable(for_checkpoints=True)
    return check_same(workdir, config, evaluates=evaluates, trains=trains)


def check_same(
    workdir: Workdir, config: ConfigDict, *, evaluates: bool = False, trains: bool = False
) -> ConfigDict:
    """Checks that a folder holds no run of another config.

    Args:
        workdir: the folder.
        config: a config.
        evaluates: whether the run is evaluated next, so that `update_evaluation` may store other
            fields of the evaluation.
        trains: whether the run is trained next, so that `config.train.num_epochs` may be larger.
            If it is not evaluated next, too, fields of the evaluation do not matter.

    Returns:
        The config, with the decisions of the run in the folder (see `with_decisions`), and with the
        fields of its evaluation where those of `config` do not matter.

    Raises:
        UserError: it holds one, or a study.
    """
    if workdir.study.exists():
        raise UserError(f"workdir '{workdir.path}' holds a study; choose another --workdir.")
    if not workdir.config.exists():
        return config
    saved = read(workdir)
    config = with_decisions(config, saved.data)
    if trains and config.train.num_epochs > saved.train.num_epochs:
        _check_can_lengthen(workdir, saved)
        saved.train.num_epochs = config.train.num_epochs
    if trains and not evaluates:
        config = config.copy_and_resolve_references()
        copy_evaluation(saved, config)
    roles: tuple[Role, ...] = ("setting",) if evaluates else ("setting", "evaluation")
    differences = difference(config, saved, roles)
    if differences:
        is_shorter = trains and config.train.num_epochs < saved.train.num_epochs
        reason = " (a run can only become longer)" if is_shorter else ""
        raise UserError(
            f"workdir '{workdir.path}' holds a run of another config; choose another --workdir or "
            f"undo the difference: {'; '.join(differences)}{reason}."
        )
    return config


def _check_can_lengthen(workdir: Workdir, saved: ConfigDict) -> None:
    """Raises a UserError if a longer run would have trained other networks up to now."""
    for name, (start, end, _) in saved.train.updates.items():
        if (start, end) != (0, 1):
            raise UserError(
                f"config.train.num_epochs: cannot be raised in '{workdir.path}', because "
                f"config.train.updates.{name} is a stage of the run, which would move; train in "
                f"another --workdir with --config.init_from={workdir.path}."
            )
