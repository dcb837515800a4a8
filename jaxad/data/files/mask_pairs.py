"""Masks and images that belong together by their names: which image does a mask mark?"""

import collections
import dataclasses
from collections.abc import Sequence, Set
from pathlib import Path

from jaxad.data.files import names
from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_search import refuse_masks
from jaxad.data.files.tree import files_in, find_files, find_folders
from jaxad.errors import UserError
from jaxad.runtime.progress import counted

#: What to do with a mask among images that must be normal.
NO_MASKS = "move masks away"


def separate_masks(scans: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Separates scans from files that are named like masks; if all are, they all count as scans."""
    masks = [path for path in scans if names.is_named_as_mask(path)]
    if len(masks) == len(scans) > 1:
        return list(scans), []
    return [path for path in scans if not names.is_named_as_mask(path)], masks


def masks_beside(folder: Path) -> dict[Path, Path]:
    """Returns the masks of scans below a folder that lie beside them, by scan.

    Raises:
        UserError: a mask has no scan, a scan has two masks, or a mask has two scans.
    """
    scans, masks = separate_masks(find_files(folder, FORMATS["nifti"].suffixes))
    scans_by_key = collections.defaultdict(list)
    for scan in scans:
        scans_by_key[_key(scan, folder)].append(scan)
    mask_of: dict[Path, Path] = {}
    for mask in masks:
        name = names.marked_by(mask)
        marked = scans_by_key[mask.relative_to(folder).parent, name]
        if not marked:
            beside = (scan for scan in scans if scan.parent == mask.parent)
            raise _has_no_scan(mask, next((s for s in beside if s.name.startswith(name)), None))
        if len(marked) > 1:
            raise _marks_two(mask, marked[0], marked[1])
        if marked[0] in mask_of:
            raise _is_second(mask, marked[0].name, mask_of[marked[0]].name)
        mask_of[marked[0]] = mask
    return mask_of


def mask_beside(path: Path, kind: Kind) -> Path | None:
    """Returns the mask beside a single normal scan; None if there is none.

    Raises:
        UserError: an image has a mask, a scan has two, or a file may be the scan's mask, judging by
            its name.
    """
    others = [
        file for file in files_in(path.parent, FORMATS[kind].suffixes) if file.name != path.name
    ]
    scan = names.plain(names.stem(path))
    named = [file for file in others if kind == "nifti" and names.is_named_as_mask(file)]
    masks = [file for file in named if names.marked_by(file) == scan]
    if len(masks) > 1:
        raise _is_second(masks[1], path.name, masks[0].name)
    stems = {names.plain(names.stem(file)) for file in others}
    for mask in named:
        marked = names.marked_by(mask)
        words = names.words_of(marked)
        is_start = bool(words) and names.words_of(scan)[: len(words)] == words
        if mask not in masks and marked not in stems and is_start:
            raise _has_no_scan(mask, path)
    # `mask_0` marks `0`, and `segmentation` marks the only image that it lies beside.
    fits = {names.words_of(scan)}
    if all(names.mask_words(names.stem(file)) for file in others):
        fits.add(())
    may_mark = [file for file in others if fits & names.images_of_mask(names.stem(file))]
    rest = [file for file in may_mark if file not in masks]
    refuse_masks(rest, kind, path.parent, NO_MASKS)
    return masks[0] if masks else None


def with_masks(items: Sequence[Item], kind: Kind, test: Path, truth: Path | None) -> list[Item]:
    """Returns the items of a test split with their masks, from `ground_truth/` or beside scans.

    `test` holds a folder for each class; `truth`, if there is one, has the same folders.

    Raises:
        UserError: an anomalous item has no mask while others have one, an item has two masks, or
            a mask has two items.
    """
    keys = [_key(item.paths[0], test) for item in items]
    in_truth = {} if truth is None else _masks_by_key(truth, kind, set(keys))
    beside = masks_beside(test) if kind == "nifti" else {}
    owners: dict[Path, Path] = {}
    paired = []
    for item, key in zip(items, keys, strict=True):
        path = item.paths[0]
        masks = in_truth.get(key, []) + ([beside[path]] if path in beside else [])
        if len(masks) > 1:
            raise _is_second(masks[1], item.id, str(masks[0]))
        mask = masks[0] if masks else None
        if mask is None and truth is not None and in_truth and item.label:
            suffix = ".nii.gz" if kind == "dicom" else names.suffix(path)
            anomalous = [
                (item.paths[0], key) for item, key in zip(items, keys, strict=True) if item.label
            ]
            num_lacking = sum(key not in in_truth and p not in beside for p, key in anomalous)
            raise UserError(
                f"{path}: has no mask in {truth / key[0]}, while other files have one there or in "
                f"another folder of {truth.name}/ (letter case counts here)"
                f"{_unmatched_folders(test, truth)}; {num_lacking:,} of "
                f"{counted(len(anomalous), 'anomalous file')} lack one: add "
                f"'{names.stem(path)}_mask{suffix}' and so on, or remove {truth.name}/."
            )
        if mask is not None and owners.setdefault(mask, path) != path:
            raise _marks_two(mask, owners[mask], path)
        # The mask of an anomalous scan tells which of its slices are anomalous.
        is_by_slice = mask is not None and kind != "image" and item.label
        label = None if is_by_slice else item.label
        paired.append(dataclasses.replace(item, mask=mask, label=label))
    return paired


def _unmatched_folders(test: Path, truth: Path) -> str:
    """Returns a hint at folders of masks without a folder of images; "" if there are none."""
    classes = {folder.name for folder in find_folders(test)}
    folders = [folder.name for folder in find_folders(truth) if folder.name not in classes]
    if not folders:
        return ""
    listed = ", ".join(f"{truth.name}/{name}" for name in folders)
    return f". No folder of {test.name}/ has the name of {listed}: rename one of the two"


def _key(path: Path, root: Path) -> tuple[Path, str]:
    """Returns the folder below a root and the name: images and masks with equal keys are pairs."""
    return path.relative_to(root).parent, names.plain(names.stem(path))


def _masks_by_key(
    truth: Path, kind: Kind, keys: Set[tuple[Path, str]]
) -> dict[tuple[Path, str], list[Path]]:
    """Returns the masks in `ground_truth/` by the key of the image that they mark.

    A mask marks the image with the same name if there is one (in `keys`), otherwise the image whose
    name is the mask's without an ending such as `_mask`.
    """
    masks: dict[tuple[Path, str], list[Path]] = collections.defaultdict(list)
    for path in find_files(truth, FORMATS["image" if kind == "image" else "nifti"].suffixes):
        key = _key(path, truth)
        masks[key if key in keys else (key[0], names.marked_by(path))].append(path)
    return dict(masks)


def _has_no_scan(mask: Path, scan: Path | None) -> UserError:
    """The error for a mask without a scan; `scan` is one that it may mark."""
    remedy = "rename one of them"
    if scan is not None:
        remedy = f"name it {names.stem(scan)}_mask{names.suffix(mask)} if it marks '{scan.name}'"
    return UserError(
        f"{mask}: is named like a mask, and there is no scan '{names.marked_by(mask)}' beside it; "
        f"{remedy}, or move it away."
    )


def _marks_two(mask: Path, first: Path, second: Path) -> UserError:
    return UserError(
        f"{mask}: has a name that fits both '{first.name}' and '{second.name}'; rename one of them "
        "so that each has its own mask."
    )


def _is_second(mask: Path, image: str, first: str) -> UserError:
    return UserError(
        f"{mask}: '{image}' already has a mask, '{first}'; merge them into one, or move one away."
    )
