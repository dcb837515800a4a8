"""Data sets that are a folder of one's own: images, NIfTI scans or DICOM series, by its names."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxad.data.items import Item, Kind
from jaxad.data.readers import dicom, images, volumes
from jaxad.data.tree import find_files, find_folders, pick
from jaxad.data.unread import no_files, other_suffixes
from jaxad.errors import UserError

#: Folders of these names hold normal images, where `config.data.normal_classes` names no others.
NORMAL_FOLDERS = ("good", "normal")

#: What the file of a mask has at the end of its name, before the suffix, in any case.
_MASK_ENDINGS = ("_mask", "_seg", "_label", "_labels")

SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    "image": images.SUFFIXES,
    "nifti": volumes.NIFTI_SUFFIXES,
    "dicom": dicom.SUFFIXES,
}

_LAYOUT = (
    "expected train/good/, test/good/ and test/<any other name>/, optionally val/good/ and "
    "ground_truth/<name>/, or a .csv file"
)


@dataclasses.dataclass(frozen=True)
class Splitting:
    """Who is in which split, where the data do not say; see `config.data`.

    Attributes:
        val_share: of the patients to learn from, those of `val`.
        test_share: of the patients without an anomaly, those of `test`.
        seed: of the draw.
        group_pattern: a regular expression over a file's path below the root: what it finds (its
            first group, if it has one) is the patient; "": every file is a patient.
        normal_classes: names of folders or labels that are normal; empty: `NORMAL_FOLDERS`.
    """

    val_share: float = 0.1
    test_share: float = 0.2
    seed: int = 0
    group_pattern: str = ""
    normal_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("val_share", "test_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"config.data.{name}: {getattr(self, name)} is not between 0 and 1."
                )
        try:
            re.compile(self.group_pattern)
        except re.error as error:
            raise UserError(
                f"config.data.group_pattern: '{self.group_pattern}' is no regular expression "
                f"({error})."
            ) from error

    def group_of(self, place: str) -> str:
        """The patient of a file, by its path below the root.

        Raises:
            UserError: the pattern finds nothing in it.
        """
        if not self.group_pattern:
            return place
        found = re.search(self.group_pattern, place)
        if found is None:
            raise UserError(
                f"config.data.group_pattern: '{self.group_pattern}' finds no patient in '{place}'; "
                "change it so that every file has one."
            )
        return found[1] if found.re.groups and found[1] is not None else found[0]

    def patient_of(self, path: Path, place: str) -> str:
        """The patient of a file, or of a DICOM series, which may name him itself.

        Raises:
            UserError: see `group_of`.
        """
        own = dicom.patient_of(path) if path.is_dir() and not self.group_pattern else ""
        return own or self.group_of(place)

    def is_normal(self, name: str) -> bool:
        """Whether a folder of this name, or a label, is normal."""
        return name in (self.normal_classes or NORMAL_FOLDERS)


def read_folder(root: Path, kind: Kind, splitting: Splitting) -> dict[str, list[Item]]:
    """The items of a folder by split: `train`, `val` and, if there is one, `test`.

    Images and scans lie in `train/good`, `val/good` (else a share of the patients of `train` is
    taken), `test/good` and `test/<any other name>`, their masks in `ground_truth/<name>` under the
    same name or with `_mask` at its end. Scans may also lie right in the root, with masks beside
    them (`<name>_mask.nii.gz`, `<name>_seg.nii.gz`): those with a mask are tested, the others are
    normal.

    Raises:
        UserError: another layout, a class without files, or anomalous ones to learn from.
    """
    if not root.is_dir():
        raise UserError(f"config.data.root '{root}': no such folder; {_LAYOUT}.")
    if not (root / "train").is_dir():
        if kind == "nifti" and (flat := _flat(root, splitting)):
            return flat
        others = "" if _files(root, kind) else no_files(root, kind)
        raise UserError(f"config.data.root '{root}': has no folder train{others}; {_LAYOUT}.")
    splits = {"train": _normal_items(root, "train", kind, splitting)}
    if (root / "val").is_dir():
        splits["val"] = _normal_items(root, "val", kind, splitting)
    else:
        splits = with_val(splits, splitting)
    if (root / "test").is_dir():
        splits["test"] = _test_items(root, kind, splitting)
    return splits


def read_any_folder(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Every file below a folder that looks like one to score, those that cannot be among them.

    Masks are passed over where the scan that they mark is there.

    Raises:
        UserError: there is none.
    """
    if kind == "dicom":
        found = _files(root, kind)
    else:
        # Those of other formats among them, each of which is then told to be one.
        found = find_files(root, (*SUFFIXES[kind], *other_suffixes(kind)))
    if kind == "nifti":
        scans = {(path.parent, _plain(stem(path))) for path in found if not _is_mask(path)}
        found = [path for path in found if not _is_mask(path) or _scan_of(path) not in scans]
    if not found:
        raise UserError(f"{root}: {_none(root, kind)}; name a folder that does.")
    return _items(root, found, splitting, label=0)


def read_normal_folder(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Every file below a folder, as normal ones: another site's.

    Raises:
        UserError: there is none.
    """
    if (root / "ground_truth").is_dir():
        raise UserError(
            f"{root}: holds ground_truth/, so not all in it is normal; name a folder in it."
        )
    found = _files(root, kind)
    if not found:
        raise UserError(f"{root}: {_none(root, kind)}; name a folder of normal ones.")
    return _items(root, found, splitting, label=0)


def with_val(splits: Mapping[str, list[Item]], splitting: Splitting) -> dict[str, list[Item]]:
    """The splits, a share of the patients of `train` moved to `val`.

    Raises:
        UserError: there is one patient only.
    """
    groups = {item.group for item in splits["train"]}
    if len(groups) < 2:
        raise UserError(
            "split 'train' is of one patient; give at least two, so that one can be validated on."
        )
    chosen, left = pick(groups, (splitting.val_share,), splitting.seed)
    if not left:
        raise UserError(
            f"config.data.val_share: {splitting.val_share} of {len(groups)} patients leaves none "
            "to learn from; make it smaller."
        )
    parts = {
        "train": [item for item in splits["train"] if item.group not in chosen],
        "val": [item for item in splits["train"] if item.group in chosen],
    }
    return {**parts, **{name: items for name, items in splits.items() if name != "train"}}


def _normal_items(root: Path, split: str, kind: Kind, splitting: Splitting) -> list[Item]:
    folders = find_folders(root / split)
    strange = [folder.name for folder in folders if not splitting.is_normal(folder.name)]
    if strange:
        raise UserError(
            f"{root / split}: holds '{strange[0]}'; only normal images are learnt from: move it to "
            f"test/, or rename it to {(splitting.normal_classes or NORMAL_FOLDERS)[0]}."
        )
    found = _files(root / split, kind)
    if not found:
        raise UserError(f"{root / split}: {_none(root / split, kind)}; {_LAYOUT}.")
    items = _items(root, found, splitting, label=0)
    if kind != "nifti":
        return items
    # A mask that marks something says that the scan is not normal, which is told when it is read.
    beside = masks_beside(root / split)
    return [dataclasses.replace(item, mask=beside.get(item.paths[0])) for item in items]


def _test_items(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    folders = find_folders(root / "test")
    loose = [path for path in _files(root / "test", kind) if path.parent == root / "test"]
    if loose:
        raise UserError(
            f"{loose[0]}: lies in test/ itself; put it into test/good/ or test/<another name>/, "
            "which says what it is."
        )
    items: list[Item] = []
    for folder in folders:
        found = _files(folder, kind)
        if not found:
            raise UserError(f"{folder}: {_none(folder, kind)}; add some or remove the folder.")
        normal = splitting.is_normal(folder.name)
        items += _items(root, found, splitting, label=0 if normal else 1)
    if not items:
        raise UserError(f"{root / 'test'}: {_none(root / 'test', kind)}; {_LAYOUT}.")
    return _with_masks(root, items, kind)


def _items(
    root: Path, paths: Iterable[Path], splitting: Splitting, label: int | None
) -> list[Item]:
    items = []
    for path in paths:
        place = path.relative_to(root).as_posix()
        place = path.name if place == "." else place
        group = splitting.patient_of(path, place)
        items.append(Item(id=place, group=group, paths=(path,), label=label))
    return items


def _files(folder: Path, kind: Kind) -> list[Path]:
    """Images or scans below a folder; of DICOM the folders that hold a series."""
    found = find_files(folder, SUFFIXES[kind])
    if kind == "dicom":
        return sorted({path.parent for path in found if dicom.may_be_dicom(path)})
    return [path for path in found if kind == "image" or not _is_mask(path)]


def _is_mask(path: Path) -> bool:
    return stem(path).lower().endswith(_MASK_ENDINGS)


def _scan_of(mask: Path) -> tuple[Path, str]:
    """The folder and the name of the scan that a mask is named after."""
    name = stem(mask)
    ending = next(one for one in _MASK_ENDINGS if name.lower().endswith(one))
    return mask.parent, _plain(name[: -len(ending)])


def masks_beside(folder: Path) -> dict[Path, Path]:
    """Of the scans below a folder that have a mask beside them, the mask.

    Raises:
        UserError: a mask is of no scan, or a scan has two.
    """
    found = find_files(folder, SUFFIXES["nifti"])
    scans = {(path.parent, _plain(stem(path))): path for path in found if not _is_mask(path)}
    masks: dict[Path, Path] = {}
    for path in filter(_is_mask, found):
        scan = scans.get(_scan_of(path))
        if scan is None:
            raise UserError(
                f"{path}: is named as a mask, and there is no scan '{_scan_of(path)[1]}' beside "
                "it; rename one of them, or move it away."
            )
        if scan in masks:
            raise UserError(f"{path}: '{scan.name}' has a mask already, '{masks[scan].name}'.")
        masks[scan] = path
    return masks


def _plain(name: str) -> str:
    """Names that look alike are the same: systems write umlauts in two ways."""
    return unicodedata.normalize("NFC", name)


def stem(path: Path) -> str:
    """The name without the suffix, `.nii.gz` as one."""
    name = path.name
    for suffix in (*volumes.NIFTI_SUFFIXES[::-1], path.suffix):
        if suffix and name.lower().endswith(suffix.lower()):
            return name[: -len(suffix)]
    return name


def _with_masks(root: Path, items: Sequence[Item], kind: Kind) -> list[Item]:
    """The items with their masks: of `ground_truth/`, or beside a scan."""
    truth = root / "ground_truth"
    suffixes = SUFFIXES["nifti"] if kind == "dicom" else SUFFIXES[kind]
    masks = find_files(truth, suffixes) if truth.is_dir() else []
    by_place = {(path.relative_to(truth).parent, _plain(stem(path))): path for path in masks}
    beside = masks_beside(root / "test") if kind == "nifti" else {}
    found = []
    for item in items:
        path = item.paths[0]
        place = path.relative_to(root / "test").parent
        names = [_plain(stem(path) + ending) for ending in ("", *_MASK_ENDINGS)]
        mask = next((by_place[place, name] for name in names if (place, name) in by_place), None)
        mask = mask or beside.get(path)
        if mask is None and masks and item.label:
            raise UserError(
                f"{path}: has no mask in {truth / place}, while other files have one there or in "
                f"another folder of ground_truth/ (names count, small and large letters too); add "
                f"'{stem(path)}_mask', or remove ground_truth/."
            )
        # A scan's mask tells which of its slices are anomalous.
        label = item.label if kind == "image" or mask is None or not item.label else None
        found.append(dataclasses.replace(item, mask=mask, label=label))
    return found


def _flat(root: Path, splitting: Splitting) -> dict[str, list[Item]]:
    """Scans right in the root, those with a mask to be tested."""
    found = [path for path in _files(root, "nifti") if path.parent == root]
    beside = masks_beside(root)
    items = [
        dataclasses.replace(item, mask=mask, label=0 if mask is None else None)
        for item in _items(root, found, splitting, label=0)
        for mask in (beside.get(item.paths[0]),)
    ]
    return draw_splits(items, splitting) if items else {}


def draw_splits(items: Sequence[Item], splitting: Splitting) -> dict[str, list[Item]]:
    """The splits of items that say none: patients with an anomaly are tested, others by share.

    Raises:
        UserError: there are too few patients to learn from.
    """
    tested = {item.group for item in items if item.label != 0}
    normal = {item.group for item in items} - tested
    classes = splitting.normal_classes
    named = f" (config.data.normal_classes={classes})" if classes else ""
    if len(normal) < 3:
        raise UserError(
            f"{len(normal)} patients are normal{named}; at least three are needed, to train, to "
            "validate and to test. Add some, or say in which split each file is."
        )
    more, val, train = pick(normal, (splitting.test_share, splitting.val_share), splitting.seed)
    if not train:
        raise UserError(
            f"config.data.val_share and test_share: {splitting.val_share} and "
            f"{splitting.test_share} of {len(normal)} patients leave none to learn from; make them "
            "smaller."
        )
    members = {"train": train, "val": val, "test": tested | more}
    return {
        name: [item for item in items if item.group in groups] for name, groups in members.items()
    }


def _none(folder: Path, kind: Kind) -> str:
    """What a message says of a folder without files to read, and what it holds instead."""
    what = {
        "image": f"images ({', '.join(images.SUFFIXES)})",
        "nifti": f"scans ({', '.join(volumes.NIFTI_SUFFIXES)})",
        "dicom": "DICOM series",
    }[kind]
    return f"holds no {what}{no_files(folder, kind)}"
