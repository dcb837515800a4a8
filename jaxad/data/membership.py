"""Who was learnt from, kept beside a run: splits that change under it are noticed.

Splits are drawn by name where nothing says them, and folders grow: a run that goes on, or is
evaluated, with other splits than it began with might be tested on patients that it has learnt from.
"""

import hashlib
import json
import logging
from typing import Any

from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import Split

logger = logging.getLogger(__name__)

#: The splits that a run depends on; others may grow, as long as they share no patient with these.
LEARNT_FROM = ("train", "val")


def remember(run: Workdir, data_set: DataSet) -> None:
    """Writes who is in the splits that are learnt from, if nobody has."""
    if not run.splits.exists():
        write_json(run.splits, {name: _members(data_set.split(name)) for name in LEARNT_FROM})


def check(run: Workdir, data_set: DataSet) -> None:
    """Checks that the splits are those that the run began with. One that kept none passes.

    Images are told apart by their names, not by their pixels.

    Raises:
        UserError: a patient or an image is new, gone or in another place.
    """
    if not run.splits.exists():
        return
    before = _kept(run)
    for name in LEARNT_FROM:
        now, then = _members(data_set.split(name)), before[name]
        if now != then:
            raise UserError(
                f"workdir '{run.path}': split '{name}' is no longer what the run began with: "
                f"{_difference(now, then)}. Give it its data back, or train anew in another "
                "--workdir."
            )


def warn_of_names(run: Workdir, normals: Split, source: str) -> None:
    """Warns where patients of another site have the names of patients that a run learnt from.

    Names such as `1` occur at many sites, so that this is no error.

    Args:
        run: whose splits are known, or not.
        normals: of the other site.
        source: where they come from, for the message.

    Raises:
        UserError: what the run keeps cannot be read.
    """
    if not run.splits.exists():
        return
    learnt = {patient for members in _kept(run).values() for patient in members["patients"]}
    patients = set(normals.groups)
    shared = patients & learnt
    if shared:
        logger.warning(
            f"warning: {source}: {len(shared):,} of {len(patients):,} patients are named as "
            f"patients that the run learnt from, such as '{min(shared)}'; if they are the same, "
            "leave them out: calibrated on them, decisions promise too much."
        )


def _kept(run: Workdir) -> dict[str, dict[str, Any]]:
    """The members of the splits that a run learnt from."""
    try:
        kept = json.loads(run.splits.read_text(encoding="utf-8"))
        return {name: {**kept[name], "patients": [*kept[name]["patients"]]} for name in LEARNT_FROM}
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
    parts = []
    for names, what in ((patients - before, "new"), (before - patients, "gone")):
        if names:
            parts.append(f"{len(names):,} patients are {what}, such as '{min(names)}'")
    return ", ".join(parts) or (
        f"it has {now['images']:,} images of the same patients, then {then['images']:,}"
        if now["images"] != then["images"]
        else "its images have other names or another order"
    )
