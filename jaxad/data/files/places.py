"""The folders right below a data set's root, by what they mean; what means nothing is reported."""

import logging
from collections.abc import Sequence
from pathlib import Path

from jaxad.data.files import names
from jaxad.data.files.tree import find_files, find_folders
from jaxad.errors import UserError

logger = logging.getLogger(__name__)

#: The key of the folder of masks, beside those of splits.
TRUTH = "ground_truth"


def find_places(root: Path, suffixes: Sequence[str], layout: str) -> dict[str, Path]:
    """The folders `train`, `val`, `test` and `ground_truth` of a root, those that there are.

    Letter case does not count, `valid` and `validation` are `val`, and `ground truth` and
    `GroundTruth` are `ground_truth`. One line on stderr names the folders that mean nothing, unless
    there is no `train`, which ends the run.

    Args:
        root: of the data set.
        suffixes: of its files.
        layout: what is expected, for messages.

    Raises:
        UserError: two folders mean the same, or one that means nothing is named much like one that
            is missing, and holds files.
    """
    places: dict[str, Path] = {}
    others = []
    for folder in find_folders(root):
        meaning = _meaning(folder.name)
        if not meaning:
            others.append(folder)
        elif meaning in places:
            raise UserError(
                f"config.data.root '{root}': '{places[meaning].name}' and '{folder.name}' are both "
                f"{meaning}; join them, or move one away."
            )
        else:
            places[meaning] = folder
    # Without a folder to learn from, no other name that is missing matters.
    lacking = {"train"} if "train" not in places else {"val", "test", TRUTH} - set(places)
    for folder in others:
        meant = names.split_suggested(folder.name)
        meant = meant or (TRUTH if names.has_mask_word(folder.name) else "")
        if meant in lacking and find_files(folder, suffixes):
            raise UserError(
                f"config.data.root '{root}': has no folder {meant}; {layout}. There is "
                f"'{folder.name}': rename it to {meant}, or move it away."
            )
    if "train" in places:
        _report(root, others, layout)
    return places


def passed_over(root: Path) -> list[Path]:
    """The folders right below a root that `find_places` or `check_flat` reports as passed over.

    Args:
        root: of a data set that can be read.
    """
    folders = find_folders(root)
    is_flat = all(_meaning(folder.name) != "train" for folder in folders)
    return [folder for folder in folders if is_flat or not _meaning(folder.name)]


def _meaning(name: str) -> str:
    return TRUTH if names.is_ground_truth(name) else names.split_named(name)


def check_flat(root: Path, suffixes: Sequence[str], layout: str) -> None:
    """Checks the folders of a root whose scans lie in the root itself: none is read.

    Args:
        root: see `find_places`.
        suffixes: likewise.
        layout: likewise.

    Raises:
        UserError: one is named as masks or as a split are, and holds files.
    """
    folders = find_folders(root)
    for folder in folders:
        is_named = names.has_mask_word(folder.name) or names.split_suggested(folder.name)
        if is_named and find_files(folder, suffixes):
            raise UserError(
                f"config.data.root '{root}': holds scans and the folder '{folder.name}', which "
                "would be passed over; put masks beside their scans (<scan>_mask.nii.gz), or all "
                f"scans into folders; {layout}."
            )
    _report(root, folders, layout)


def _report(root: Path, others: Sequence[Path], layout: str) -> None:
    if others:
        counted = ", ".join(f"'{folder.name}' ({_num_files(folder)})" for folder in others)
        logger.warning(f"warning: config.data.root '{root}': passed over {counted}; {layout}.")


def _num_files(folder: Path) -> str:
    count = len(find_files(folder, ("",)))
    return f"{count:,} file{'s' * (count != 1)}"


def check_spellings(folder: Path, known: Sequence[str]) -> None:
    """Raises a UserError for two folders that are one word in two spellings: `Good` and `good`.

    Args:
        folder: whose folders are looked at.
        known: the words that have a meaning, in the spellings that may be side by side.
    """
    words = {names.folded(word) for word in known}
    first: dict[str, str] = {}
    for entry in find_folders(folder):
        word = names.folded(entry.name)
        other = first.setdefault(word, entry.name)
        if word in words and other != entry.name and not {other, entry.name} <= set(known):
            raise UserError(
                f"{folder}: '{other}' and '{entry.name}' are two spellings of one word; join "
                "them in one folder."
            )
