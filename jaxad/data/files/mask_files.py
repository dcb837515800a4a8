"""Files of masks: refused or left out among images, and which image each of them marks."""

import collections
import dataclasses
import logging
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from jaxad.data.files import names
from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_search import find_masks
from jaxad.data.files.tree import find_files
from jaxad.errors import UserError

logger = logging.getLogger(__name__)


def refuse_masks(paths: Sequence[Path], kind: Kind, root: Path, remedy: str) -> None:
    """Raises a UserError that names the first mask among files that are to be images.

    Args:
        paths: see `find_masks`.
        kind: likewise.
        root: likewise.
        remedy: what to do with a mask.
    """
    masks = find_masks(paths, kind, root)
    if masks:
        count = len(masks) - 1
        more = f" (and {count:,} more file{'s' * (count > 1)})" if count else ""
        raise UserError(
            f"{masks[0].path}: is a mask and no image: {masks[0].why}{more}; {remedy}, or change "
            "the name that says so if it is an image."
        )


def leave_out_masks(paths: Sequence[Path], kind: Kind, root: Path) -> list[Path]:
    """The files without the masks among them, which one line on stderr counts.

    Args:
        paths: see `find_masks`.
        kind: likewise.
        root: likewise.
    """
    masks = find_masks(paths, kind, root)
    if masks:
        logger.warning(
            f"{root}: left out {len(masks):,} of {len(paths):,} files, which are masks; the first: "
            f"{masks[0].path} ({masks[0].why})"
        )
    left_out = {mask.path for mask in masks}
    return [path for path in paths if path not in left_out]


# --- Which image a mask marks.


def _suffixes(kind: Kind) -> tuple[str, ...]:
    """Suffixes of files of masks."""
    return FORMATS["image" if kind == "image" else "nifti"].suffixes


def masks_beside(folder: Path) -> dict[Path, Path]:
    """Of the scans below a folder that have a mask beside them, the mask.

    Raises:
        UserError: a mask is of no scan, a scan has two, or two scans have one.
    """
    scans, others = part_scans(find_files(folder, _suffixes("nifti")))
    by_name: dict[tuple[Path, str], list[Path]] = collections.defaultdict(list)
    for path in scans:
        by_name[path.parent, names.plain(names.stem(path))].append(path)
    masks: dict[Path, Path] = {}
    for path in others:
        name = names.marked_by(path)
        marked = by_name.get((path.parent, name), [])
        if not marked:
            raise UserError(
                f"{path}: is named as a mask, and there is no scan '{name}' beside it; "
                f"{_new_name(path, name, scans)}, or move it away."
            )
        if len(marked) > 1:
            raise _marks_both(path, marked[0], marked[1])
        scan = marked[0]
        if scan in masks:
            raise UserError(
                f"{path}: '{scan.name}' has a mask already, '{masks[scan].name}'; join them into "
                "one, or move one away."
            )
        masks[scan] = path
    return masks


def _marks_both(mask: Path, first: Path, second: Path) -> UserError:
    return UserError(
        f"{mask}: marks '{first.name}' and '{second.name}' by its name; rename one of them, so "
        "that each has a mask of its own."
    )


def _new_name(mask: Path, name: str, scans: Sequence[Path]) -> str:
    """How to name a mask, or its scan, where there is no scan of the name that it marks."""
    near = (scan for scan in scans if scan.parent == mask.parent and scan.name.startswith(name))
    scan = next(near, None)
    if scan is None:
        return "rename one of them"
    return f"name it {names.stem(scan)}_mask{names.suffix(mask)} if it marks '{scan.name}'"


def part_scans(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Scans, and files that are named as their masks; where all are named so, all are scans."""
    masks = [path for path in paths if names.is_named_as_mask(path)]
    if len(masks) == len(paths) > 1:
        return list(paths), []
    return [path for path in paths if not names.is_named_as_mask(path)], masks


def with_masks(items: Sequence[Item], kind: Kind, test: Path, truth: Path | None) -> list[Item]:
    """The items of a test split with their masks: of `ground_truth/`, or beside a scan.

    Args:
        items: in folders by class.
        kind: of their files.
        test: the folder of the classes.
        truth: the folder of masks, with the same folders in it; None: there is none.

    Raises:
        UserError: an anomalous item has no mask while others have one, an item has two, or two
            items have one.
    """
    own = {(_place(item, test), _name(item)) for item in items}
    by_place = {} if truth is None else _by_place(truth, find_files(truth, _suffixes(kind)), own)
    beside = masks_beside(test) if kind == "nifti" else {}
    marked: dict[Path, Path] = {}
    with_mask = []
    for item in items:
        path, place = item.paths[0], _place(item, test)
        masks = by_place.get((place, _name(item)), [])
        masks = [*masks, *([beside[path]] if path in beside else [])]
        if len(masks) > 1:
            raise UserError(
                f"{masks[1]}: '{item.id}' has a mask already, '{masks[0]}'; join them into one, or "
                "move one away."
            )
        mask = masks[0] if masks else None
        if mask is None and by_place and item.label:
            assert truth is not None
            suffix = ".nii.gz" if kind == "dicom" else names.suffix(path)
            raise UserError(
                f"{path}: has no mask in {truth / place}, while other files have one there or in "
                f"another folder of {truth.name}/ (names count, small and large letters too); add "
                f"'{names.stem(path)}_mask' ({suffix}), or remove {truth.name}/."
            )
        if mask is not None and marked.setdefault(mask, path) != path:
            raise _marks_both(mask, marked[mask], path)
        # A scan's mask tells which of its slices are anomalous.
        label = item.label if kind == "image" or mask is None or not item.label else None
        with_mask.append(dataclasses.replace(item, mask=mask, label=label))
    return with_mask


def _place(item: Item, test: Path) -> Path:
    return item.paths[0].relative_to(test).parent


def _name(item: Item) -> str:
    return names.plain(names.stem(item.paths[0]))


def _by_place(
    truth: Path, paths: Iterable[Path], own: Set[tuple[Path, str]]
) -> dict[tuple[Path, str], list[Path]]:
    """Masks by the folder and the name of what they mark.

    That is the image of their own name, where `own` has it, or else that of their name without its
    ending.
    """
    by_place: dict[tuple[Path, str], list[Path]] = collections.defaultdict(list)
    for path in paths:
        place, name = path.relative_to(truth).parent, names.plain(names.stem(path))
        by_place[place, name if (place, name) in own else names.marked_by(path)].append(path)
    return dict(by_place)
