"""The members of a run's training splits, kept beside the run so that changes are noticed.

`train` and `val` may be drawn from a folder, and folders grow. A run that resumes, or is evaluated,
with splits other than those it began with might be tested on patients that it was trained on.
"""

import contextlib
import hashlib
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.data_sets import data_set_info
from jaxad.data.files.items import Item
from jaxad.data.files.names import is_archive
from jaxad.data.leaks import TRAINING_SPLITS
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.runtime.progress import counted
from jaxad.storage.locations import locate_data
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import Split

logger = logging.getLogger(__name__)


def remember(run: Workdir, data_set: DataSet) -> None:
    """Writes the members of the training splits, unless the run has them already."""
    if not run.splits.exists():
        write_json(run.splits, {name: _members(data_set.split(name)) for name in TRAINING_SPLITS})


def check(run: Workdir, data_set: DataSet) -> None:
    """Checks that the training splits are those that the run began with, by names, not pixels.

    Test splits may grow. A run whose members were not stored passes.

    Raises:
        UserError: a patient or an image is new, gone or in another split.
    """
    if not run.splits.exists():
        return
    before = _read_members(run)
    for name in TRAINING_SPLITS:
        now, then = _members(data_set.split(name)), before[name]
        if now != then:
            raise UserError(
                f"workdir '{run.path}': split '{name}' is not what it was when the run began: "
                f"{_difference(now, then)}. Restore the data, or train again in another --workdir."
            )


def check_processes(data_set: DataSet) -> None:
    """Raises a UserError unless all of several processes read the same ids, patients and labels.

    Each trains on its part of every batch, and two that order the images differently would learn
    from some images twice. They must also have decided on the same foreground
    (`config.data.preprocess.foreground=auto`). Every process must call it.
    """
    if processes.are_several():
        splits = {name: data_set.split(name) for name in data_set.split_names}
        check_processes_read_same(data_set.info.name, splits, data_set.data.preprocess.foreground)


def check_processes_read_same(
    source: str, splits: Mapping[str, Split], foreground: str = ""
) -> None:
    """Raises a UserError unless all of several processes read the same splits from a source.

    `foreground` is what each has decided for `config.data.preprocess.foreground`.
    """
    if not processes.are_several():
        return
    digest = zlib.crc32(foreground.encode())
    for name, split in splits.items():
        facts = [name, split.images.shape, _members(split), split.groups, split.labels.tolist()]
        digest = zlib.crc32(repr(facts).encode(errors="surrogateescape"), digest)
    if len(set(processes.of_all(digest & 0x7FFFFFFF))) > 1:
        raise UserError(
            f"{source}: the processes read different images, or in different orders; "
            "give all hosts the same data, in splits that depend on the config alone."
        )


def warn_of_names(run: Workdir, patients: set[str], source: str, consequence: str) -> None:
    """Warns if patients of another site have the same names as training patients.

    `consequence` says what happens if they are the same patients: "they ...".

    This is not an error: names such as `1` occur at many sites. Nothing is compared if the members
    of the run were not stored.

    Raises:
        UserError: the members cannot be read.
    """
    if not run.splits.exists():
        return
    members = _read_members(run).values()
    shared = patients & {patient for split in members for patient in split["patients"]}
    if shared:
        logger.warning(
            f"warning: {source}: {len(shared):,} of {len(patients):,} patients have the same names "
            f"as patients that the run was trained on, such as '{min(shared)}'. If they are the "
            f"same patients, leave them out: {consequence}."
        )


def warn_of_trained(source: Workdir, data_set: DataSet) -> None:
    """Warns if a run that gives initial weights was trained on patients of `val` or a test split.

    This is not an error: names such as `1` occur in many data sets. Nothing is compared if the
    members of the source were not stored.

    Raises:
        UserError: the members cannot be read.
    """
    if not source.splits.exists():
        return
    trained = set(_read_members(source)["train"]["patients"])
    for name in ("val", *data_set.test_split_names):
        patients = set(data_set.split(name).groups)
        if shared := trained & patients:
            logger.warning(
                f"warning: config.init_from: {len(shared):,} of {len(patients):,} patients of "
                f"'{name}' have the same names as patients that '{source.path}' was trained on, "
                f"such as '{min(shared)}'. If they are the same patients, results on '{name}' are "
                "too good: use the splits of that run (config.data.seed, val_share, test_share)."
            )


def warn_of_learnt(run: Workdir, items: Sequence[Item], data: ConfigDict, source: Path) -> None:
    """Warns if images to score are of patients that the run was trained or calibrated on.

    Files in the run's data folder are compared by path, others by the patient's name if it is
    known. Nothing is compared if the members of the run were not stored.

    Args:
        run: the run.
        items: the images or scans to score.
        data: `config.data` of the run.
        source: the path that the items are at, for the message.

    Raises:
        UserError: the members cannot be read.
    """
    if not run.splits.exists():
        return
    learnt = {patient for split in _read_members(run).values() for patient in split["patients"]}
    root = locate_data(data.root or ".").resolve()
    folder = root.parent if root.is_file() else root
    splitting = settings.splitting(data)

    def is_learnt(item: Item) -> bool:
        path = item.paths[0].resolve()
        is_own = bool(data.root) and path.is_relative_to(folder)
        is_named = not item.is_unnamed or (is_own and is_archive(path))
        if is_named and item.group in learnt:
            return True
        # With another `group_pattern` the same patient has another name.
        if not is_own or (is_named and not splitting.group_pattern):
            return False
        with contextlib.suppress(UserError):  # no patient has such a path
            return splitting.patient_of(path, path.relative_to(folder).as_posix()) in learnt
        return False

    known = [item for item in items if is_learnt(item)]
    if known:
        unit = "scans" if data_set_info(data.name).holds_scans else "images"
        logger.warning(
            f"warning: {source}: {len(known):,} of {len(items):,} {unit} are of patients that the "
            f"run was trained or calibrated on, such as '{known[0].id}'; their scores are lower "
            f"than those of new {unit}, and their p-values are not valid."
        )


def _read_members(run: Workdir) -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(run.splits.read_text(encoding="utf-8"))
        return {
            name: {**kept[name], "patients": [*kept[name]["patients"]]} for name in TRAINING_SPLITS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{run.splits}' cannot be read ({error!r}); restore it.") from error


def _members(split: Split) -> dict[str, Any]:
    digest = hashlib.blake2b("\n".join(split.ids).encode(errors="surrogateescape"), digest_size=16)
    return {
        "images": len(split),
        "order_of_images": digest.hexdigest(),
        "patients": sorted(set(split.groups)),
    }


def _difference(now: dict[str, Any], then: dict[str, Any]) -> str:
    patients, before = set(now["patients"]), set(then["patients"])
    changes = [
        f"{counted(len(names), 'patient')} {change}, such as '{min(names)}'"
        for names, change in ((patients - before, "added"), (before - patients, "removed"))
        if names
    ]
    if changes:
        return " and ".join(changes)
    if now["images"] != then["images"]:
        return (
            f"{counted(now['images'], 'image')} of the same patients instead of {then['images']:,}"
        )
    return "its images have other names or another order"
