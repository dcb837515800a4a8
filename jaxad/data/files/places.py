"""Folders directly below the root of a data set by their meaning; others are reported."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from jaxad.data.files import names
from jaxad.data.files.tree import find_files, find_folders
from jaxad.errors import UserError
from jaxad.runtime.progress import counted

logger = logging.getLogger(__name__)

#: The expected layout, for messages.
LAYOUT = (
    "expected train/good/, test/good/ and test/<any other name>/, optionally val/good/ and "
    "ground_truth/<name>/, or a .csv file"
)

#: The meaning of the folder of masks; those of other folders are names of splits.
TRUTH = "ground_truth"


def find_places(root: Path, suffixes: Sequence[str], *, test_only: bool = False) -> dict[str, Path]:
    """Returns the folders `train`, `val`, `test` and `ground_truth` of a root, if they exist.

    Letter case does not count; `valid` and `validation` mean `val`, and `ground truth` and
    `GroundTruth` mean `ground_truth`. Other folders are logged if there is a folder `train`, or
    `test` with `test_only`.

    Raises:
        UserError: two folders have one meaning, or a folder that holds files is named similarly to
            a folder that is missing.
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
                f"{meaning}; merge them, or move one away."
            )
        else:
            places[meaning] = folder
    needed = "test" if test_only else "train"
    # Report a missing `train` first.
    missing = {needed} if needed not in places else {"val", "test", TRUTH} - set(places)
    for folder in others:
        suggested = _suggested_meaning(folder.name)
        if suggested in missing and find_files(folder, suffixes):
            raise UserError(
                f"config.data.root '{root}': has no folder {suggested}; {LAYOUT}. There is "
                f"'{folder.name}': rename it to {suggested}, or move it away."
            )
    if needed in places:
        _report(root, others)
    return places


def passed_over(root: Path, files: Collection[Path]) -> list[Path]:
    """Returns the folders below a root that `find_places` or `check_flat` logs as ignored.

    No folder with one of the `files` that are read is ignored.
    """
    below = (file.relative_to(root).parts for file in files if file.is_relative_to(root))
    used = {parts[0] for parts in below if parts}
    folders = find_folders(root)
    is_flat = not any(folder.name in used for folder in folders)
    unused = [folder for folder in folders if folder.name not in used]
    return [folder for folder in unused if is_flat or not _meaning(folder.name)]


def _meaning(name: str) -> str:
    return TRUTH if names.is_ground_truth(name) else names.split_named(name)


def _suggested_meaning(name: str) -> str:
    return names.split_suggested(name) or (TRUTH if names.suggests_ground_truth(name) else "")


def check_flat(root: Path, suffixes: Sequence[str]) -> None:
    """Logs the folders of a root that holds scans itself: none of the folders is read.

    Raises:
        UserError: a folder that holds files has the name of a split or of masks.
    """
    folders = find_folders(root)
    for folder in folders:
        if _suggested_meaning(folder.name) and find_files(folder, suffixes):
            raise UserError(
                f"config.data.root '{root}': holds scans and the folder '{folder.name}', which "
                "would be ignored; put masks beside their scans (<scan>_mask.nii.gz), or all scans "
                f"into folders; {LAYOUT}."
            )
    _report(root, folders)


def _report(root: Path, ignored: Sequence[Path]) -> None:
    """Logs ignored folders; not those that are empty or hold only what jaxad wrote."""
    counts = {folder.name: len(find_files(folder, ("",))) for folder in ignored}
    listed = [f"'{name}' ({counted(count, 'file')})" for name, count in counts.items() if count]
    if listed:
        logger.warning(
            f"warning: config.data.root '{root}': ignored {', '.join(listed)}; {LAYOUT}."
        )


def check_spellings(folder: Path, words: Sequence[str]) -> None:
    """Raises a UserError if two folders are spellings of one of the words: `Good` and `good`.

    Spellings that are both among the words may exist side by side.
    """
    folded_words = set(map(names.folded, words))
    first: dict[str, str] = {}
    for entry in find_folders(folder):
        word = names.folded(entry.name)
        other = first.setdefault(word, entry.name)
        if word in folded_words and other != entry.name and not {other, entry.name} <= set(words):
            raise UserError(
                f"{folder}: '{other}' and '{entry.name}' are two spellings of one word; merge them "
                "into one folder."
            )
