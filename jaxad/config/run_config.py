"""The config of a run, stored in the run's folder."""

from ml_collections import ConfigDict

from jaxad.config.fields import FIELDS
from jaxad.config.text import difference, flatten, from_json, to_json
from jaxad.errors import UserError
from jaxad.storage.paths import expand
from jaxad.storage.workdir import Workdir, atomic_write


def read(workdir: Workdir) -> ConfigDict:
    """The config of the run in a folder.

    Raises:
        UserError: the folder holds no run, or its config is damaged or of another version.
    """
    try:
        config = from_json(workdir.config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"workdir '{workdir.path}': holds no config.json; train there first, or name the "
            "folder of a run."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{workdir.config}' cannot be read ({error}); restore it, or choose another --workdir."
        ) from error
    known = flatten(config)
    missing = [f"config.{field.path}" for field in FIELDS if not field.is_open_group]
    if missing := [path for path in missing if path not in known]:
        raise UserError(
            f"'{workdir.config}': has no {missing[0]}, because another version of jaxad wrote it; "
            "use that version, or train in another --workdir."
        )
    return config


def write(workdir: Workdir, config: ConfigDict) -> None:
    """Writes the config into a folder that has none; relative paths of data become absolute.

    Call it once every check of the config has passed: from then on the folder belongs to this run.

    Raises:
        UserError: see `check`.
    """
    check(workdir, config)
    if workdir.config.exists():
        return
    config = config.copy_and_resolve_references()
    for data in (config.data, config.data.test):
        if data.root and "://" not in data.root:
            # A command in any other folder then finds the data.
            data.root = str(expand(data.root, "config.data.root").absolute())
    with atomic_write(workdir.config) as file:
        file.write(to_json(config))


def check(workdir: Workdir, config: ConfigDict) -> None:
    """Checks that a folder can be written and holds no run of another config.

    Raises:
        UserError: the folder cannot be written, its name cannot be used for checkpoints, or it
            holds a study or a run of another config.
    """
    workdir.check_writable(for_checkpoints=True)
    check_same(workdir, config)


def check_same(workdir: Workdir, config: ConfigDict) -> None:
    """Checks that a folder holds no run of another config.

    Raises:
        UserError: it holds one, or a study.
    """
    if workdir.study.exists():
        raise UserError(f"workdir '{workdir.path}' holds a study; choose another --workdir.")
    if workdir.config.exists():
        differences = difference(config, read(workdir))
        if differences:
            raise UserError(
                f"workdir '{workdir.path}' holds a run of another config; choose another "
                f"--workdir or undo the difference: {'; '.join(differences)}."
            )
