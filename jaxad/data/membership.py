"""Who was learnt from, kept beside a run: splits that change under it are noticed.

Splits are drawn by name where nothing says them, and folders grow: a run that goes on, or is
evaluated, with other splits than it began with might be tested on patients that it has learnt from.
"""

import hashlib
import json
from typing import Any

from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.types import Split
from jaxad.workdir import Workdir, write_json

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
    try:
        kept = json.loads(run.splits.read_text(encoding="utf-8"))
        before = {name: dict(kept[name]) for name in LEARNT_FROM}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{run.splits}' cannot be read ({error!r}); restore it.") from error
    for name in LEARNT_FROM:
        now, then = _members(data_set.split(name)), before[name]
        if now != then:
            raise UserError(
                f"workdir '{run.path}': split '{name}' is no longer what the run began with: "
                f"{_difference(now, then)}. Give it its data back, or train anew in another "
                "--workdir."
            )


def _members(split: Split) -> dict[str, Any]:
    digest = hashlib.blake2b("\n".join(split.ids).encode(errors="surrogateescape"), digest_size=16)
    return {
        "images": len(split),
        "order_of_images": digest.hexdigest(),
        "patients": sorted(set(split.groups)),
    }


def _difference(now: dict[str, Any], then: dict[str, Any]) -> str:
    patients, before = set(now["patients"]), set(then["patients"])
    told = []
    for found, what in ((patients - before, "new"), (before - patients, "gone")):
        if found:
            told.append(f"{len(found):,} patients are {what}, such as '{min(found)}'")
    return ", ".join(told) or (
        f"it has {now['images']:,} images of the same patients, then {then['images']:,}"
        if now["images"] != then["images"]
        else "its images have other names or another order"
    )
