"""Masks: which files are masks and not images, and which image each of them marks."""

import collections
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from jaxad.data import names
from jaxad.data.formats import FORMATS, Kind
from jaxad.data.items import Item
from jaxad.data.readers import dicom, images, volumes
from jaxad.data.tree import find_files, is_hidden
from jaxad.errors import DataError, UserError

#: So few whole numbers are labels, and more of them where neighbours mostly have the same one.
_FEW_LABELS, _MOST_LABELS, _SAME = 8, 64, 0.8

#: Of the pixels of a mask that was blurred or compressed, those that are nearly black or white.
_MOST_PIXELS, _NEARLY = 0.98, 0.1

#: And those that are nearly white: an image has outliers too.
_SOME_PIXELS = 0.001

#: Files whose content is looked at where every file is named as a mask.
_SOME = 5


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A file that is a mask.

    Attributes:
        path: of the file.
        why: it is taken for one, for messages.
    """

    path: Path
    why: str


def find_masks(paths: Sequence[Path], kind: Kind, root: Path) -> list[MaskFile]:
    """The masks among files that were gathered as images, scans or DICOM series.

    A mask has a word for masks in its name or in that of its folder, and either lies beside the
    image that the rest of its name names, or holds a label map. Where all files but those beside an
    image have such a word, it says nothing: they are images, which a warning says where they hold
    label maps.

    Args:
        paths: of all the files of a data set.
        kind: of the files.
        root: what they were gathered in; the names of folders below it count.
    """
    stems = functools.cache(lambda folder: _stems_of_images(folder, kind))
    of_folder = functools.cache(lambda folder: _evidence_of_folder(folder, root))
    by_path = {path: _evidence(path, of_folder(path.parent), stems) for path in paths}
    others = [evidence for evidence in by_path.values() if not evidence]
    says_nothing = len(others) > 1 and set(others) == {""}
    if says_nothing:
        _warn_of_label_maps([path for path, evidence in by_path.items() if evidence == ""], kind)
    masks = []
    for path, evidence in by_path.items():
        if evidence:
            masks.append(MaskFile(path, evidence))
        elif evidence == "" and not says_nothing and _holds_label_map(path, kind):
            masks.append(MaskFile(path, "by its name, and it holds a label map"))
    return masks


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
        more = f" (and {len(masks) - 1:,} more)" if len(masks) > 1 else ""
        raise UserError(
            f"{masks[0].path}: is a mask and no image: {masks[0].why}{more}; {remedy}, or rename "
            "it where it is an image."
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
        print(
            f"{root}: left out {len(masks):,} of {len(paths):,} files, which are masks; the first: "
            f"{masks[0].path} ({masks[0].why})",
            file=sys.stderr,
            flush=True,
        )
    left_out = {mask.path for mask in masks}
    return [path for path in paths if path not in left_out]


#: Of a folder, the words of the names of images in it, and of each a file.
_Stems = Callable[[Path], Mapping[tuple[str, ...], Path]]


def _evidence_of_folder(folder: Path, root: Path) -> str | None:
    """See `_evidence`; by the names of the folders below the root that a file lies in."""
    below = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    truth = next((part for part in below if names.is_ground_truth(part)), None)
    if truth is not None:
        return f"it lies in {truth}/"
    return "" if any(names.has_mask_word(part) for part in below) else None


def _evidence(path: Path, in_folder: str | None, stems: _Stems) -> str | None:
    """Why a file is a mask by names alone; "" where its content decides; None for images."""
    if in_folder:
        return in_folder
    named = names.mask_name(names.stem(path))
    if named is None:
        return in_folder
    beside = stems(path.parent)
    marked = next((beside[words] for words in sorted(named.marked) if words in beside), None)
    if marked is None and () in named.marked:  # `segmentation` marks whatever lies beside it
        marked = next(
            (image for words, image in beside.items() if names.mask_name(" ".join(words)) is None),
            None,
        )
    if named.is_weak:  # a crop is named so too: its content decides, where there is an image
        return in_folder if marked is None else ""
    return "" if marked is None else f"'{marked.name}' lies beside it"


def _stems_of_images(folder: Path, kind: Kind) -> dict[tuple[str, ...], Path]:
    stems: dict[tuple[str, ...], Path] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # is told when its files are read
        return stems
    for path in entries:
        if is_hidden(path.name):
            continue
        fits = path.is_dir() if kind == "dicom" else path.name.lower().endswith(_suffixes(kind))
        if fits:
            stems.setdefault(names.words_of(names.stem(path)), path)
    return stems


def _suffixes(kind: Kind) -> tuple[str, ...]:
    """Of files of masks, and of images or scans."""
    return FORMATS["image" if kind == "image" else "nifti"].suffixes


def _warn_of_label_maps(paths: Sequence[Path], kind: Kind) -> None:
    maps = [path for path in paths[:_SOME] if _holds_label_map(path, kind)]
    if maps:
        print(
            f"warning: {maps[0]}: holds a label map and is named as a mask, as all files are; they "
            "are taken for images.",
            file=sys.stderr,
            flush=True,
        )


def _holds_label_map(path: Path, kind: Kind) -> bool:
    """Whether a file is a mask by its content; what is wrong with one is told when it is read."""
    try:
        if kind == "image":
            return is_label_map(images.read_image(path))
        read = dicom.read_series if path.is_dir() else volumes.read_nifti
        return is_label_map(read(path).voxels)
    except DataError:
        return False


def is_label_map(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether pixels are labels: a few whole numbers, or nearly all of them black or white.

    Args:
        values: of the pixels of an image, or of the voxels of a scan.
    """
    labels = np.unique(values)
    if len(labels) <= _MOST_LABELS and bool((labels == np.rint(labels)).all()):
        is_same = values[1:] == values[:-1]
        if len(labels) <= _FEW_LABELS or (is_same.size and is_same.mean() >= _SAME):
            return True
    lowest, extent = float(labels[0]), float(labels[-1]) - float(labels[0])
    shares = (values.astype(np.float64) - lowest) / max(extent, 1e-12)
    black, white = (shares < _NEARLY).mean(), (shares > 1 - _NEARLY).mean()
    return bool(white >= _SOME_PIXELS and black + white >= _MOST_PIXELS)


# --- Which image a mask marks.


def masks_beside(folder: Path) -> dict[Path, Path]:
    """Of the scans below a folder that have a mask beside them, the mask.

    Raises:
        UserError: a mask is of no scan, or a scan has two.
    """
    scans, others = part_scans(find_files(folder, _suffixes("nifti")))
    by_name: dict[tuple[Path, str], Path] = {}
    for path in scans:
        by_name.setdefault((path.parent, names.plain(names.stem(path))), path)
    masks: dict[Path, Path] = {}
    for path in others:
        name = names.marked_by(path)
        scan = by_name.get((path.parent, name))
        if scan is None:
            raise UserError(
                f"{path}: is named as a mask, and there is no scan '{name}' beside it; "
                f"{_new_name(path, name, scans)}, or move it away."
            )
        if scan in masks:
            raise UserError(
                f"{path}: '{scan.name}' has a mask already, '{masks[scan].name}'; join them into "
                "one, or move one away."
            )
        masks[scan] = path
    return masks


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
            raise UserError(
                f"{mask}: marks '{marked[mask].name}' and '{path.name}' by its name; rename one of "
                "them, so that each has a mask of its own."
            )
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
