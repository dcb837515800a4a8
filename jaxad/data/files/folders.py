"""Data sets that are a folder of the user's: images, NIfTI scans or DICOM series, by its names."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_files import (
    leave_out_masks,
    masks_beside,
    part_scans,
    refuse_masks,
    with_masks,
)
from jaxad.data.files.names import (
    NORMAL_WORDS,
    folded,
    is_ground_truth,
    split_named,
    suggests_normal,
)
from jaxad.data.files.places import TRUTH, check_flat, check_spellings, find_places
from jaxad.data.files.tree import find_files, find_folders, pick
from jaxad.data.files.unread import instead, none_of
from jaxad.data.readers import dicom
from jaxad.errors import UserError

#: A remedy where there seem to be fewer patients than there are.
SEVERAL_UNDER_ONE_NAME = (
    "If one name stands for several patients, as PatientID may in anonymised DICOM files, find "
    "them in the paths of the files with config.data.group_pattern."
)

_LAYOUT = (
    "expected train/good/, test/good/ and test/<any other name>/, optionally val/good/ and "
    "ground_truth/<name>/, or a .csv file"
)

#: What to do with a mask among images.
_REMEDIES: Mapping[Kind, str] = {
    "image": "move masks of test images to ground_truth/<name>/, and all others away",
    "nifti": "name the mask of a scan <scan>_mask.nii.gz, beside it, and move all others away",
    "dicom": "move it away: masks of series are NIfTI files in ground_truth/<name>/",
}


@dataclasses.dataclass(frozen=True)
class Splitting:
    """Who is in which split, where the data do not say; see `config.data`.

    Attributes:
        val_share: of the patients to learn from, those of `val`.
        test_share: of the patients without an anomaly, those of `test`.
        seed: of the draw.
        group_pattern: a regular expression over a file's path below the root: what it finds (its
            first group, if it has one) is the patient; "": every file is a patient.
        normal_classes: names of folders or labels that are normal; empty: `NORMAL_WORDS`.
    """

    val_share: float = 0.1
    test_share: float = 0.2
    seed: int = 0
    group_pattern: str = ""
    normal_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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
        """The patient of a file, or of a DICOM series whose files may name one.

        Raises:
            UserError: see `group_of`.
        """
        own = dicom.patient_of(path) if path.is_dir() and not self.group_pattern else ""
        return own or self.group_of(place)

    def is_normal(self, name: str) -> bool:
        """Whether a folder of this name, or a label, is normal; letter case does not count."""
        return folded(name) in map(folded, self.normal_words)

    @property
    def normal_words(self) -> tuple[str, ...]:
        """Names of normal folders and labels."""
        return self.normal_classes or NORMAL_WORDS

    def check_class(self, folder: Path) -> None:
        """Raises a UserError for a folder that is named as normal ones are and is not one of them.

        Where `config.data.normal_classes` says which are normal, that is as it should be.
        """
        if (
            not self.normal_classes
            and suggests_normal(folder.name)
            and not self.is_normal(folder.name)
        ):
            known = (*NORMAL_WORDS, folder.name)
            raise UserError(
                f"{folder}: is named as normal images are, and would be anomalous; rename it to "
                f"{NORMAL_WORDS[0]}, or list what is normal, config.data.normal_classes={known}; "
                f"or, if it is anomalous, set config.data.normal_classes={NORMAL_WORDS}."
            )


def read_folder(root: Path, kind: Kind, splitting: Splitting) -> dict[str, list[Item]]:
    """The items of a folder by split: `train`, `val` and, if there is one, `test`.

    Images and scans lie in `train/good`, `val/good` (else a share of the patients of `train` is
    taken), `test/good` and `test/<any other name>`, their masks in `ground_truth/<name>` under the
    same name or with `_mask` at its end. Scans may also lie right in the root, with masks beside
    them (`<name>_mask.nii.gz`, `<name>_seg.nii.gz`): those with a mask are tested, the others are
    normal. Letter case does not count in these names; see `find_places`.

    Raises:
        UserError: another layout, a class without files, anomalous ones to learn from, or a mask
            among the images.
    """
    if not root.is_dir():
        raise UserError(f"config.data.root '{root}': no such folder; {_LAYOUT}.")
    has_train = any(split_named(path.name) == "train" for path in find_folders(root))
    if kind == "nifti" and not has_train and (flat := _flat(root, splitting)):
        return flat
    places = find_places(root, FORMATS[kind].suffixes, _LAYOUT)
    if "train" not in places:
        others = "" if _files(root, kind) else instead(root, kind)
        raise UserError(f"config.data.root '{root}': has no folder train{others}; {_LAYOUT}.")
    splits: dict[str, list[Item]] = {
        name: _normal_items(root, places[name], kind, splitting)
        for name in ("train", "val")
        if name in places
    }
    if "test" in places:
        splits["test"] = _test_items(root, places["test"], kind, splitting)
    _refuse_masks(root, splits, kind)
    if "test" in places:
        splits["test"] = with_masks(splits["test"], kind, places["test"], places.get(TRUTH))
    return splits if "val" in places else with_val(splits, splitting)


def _refuse_masks(root: Path, splits: Mapping[str, list[Item]], kind: Kind) -> None:
    paths = [path for items in splits.values() for item in items for path in item.paths]
    refuse_masks(paths, kind, root, _REMEDIES[kind])


def read_any_folder(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Every file below a folder that looks like one to score, those that cannot be among them.

    Masks are left out, which a line on stderr says.

    Raises:
        UserError: there is none.
    """
    if kind == "dicom":
        found = _files(root, kind)
    else:
        found = find_files(root, (*FORMATS[kind].suffixes, *FORMATS[kind].others))
    found = leave_out_masks(found, kind, root)
    if not found:
        raise UserError(f"{root}: {none_of(root, kind)}; name a folder that does.")
    return _items(root, found, splitting, label=0)


def read_normal_folder(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Every file below a folder, as normal ones: another site's. Scans keep their masks.

    Raises:
        UserError: there is none, or a mask is among them that is of no scan.
    """
    truth = next((path for path in find_folders(root) if is_ground_truth(path.name)), None)
    if truth is not None:
        raise UserError(
            f"{root}: holds {truth.name}/, so not all in it is normal; name a folder in it."
        )
    found = _files(root, kind)
    if not found:
        raise UserError(f"{root}: {none_of(root, kind)}; name a folder of normal ones.")
    refuse_masks(found, kind, root, "move masks away")
    return _with_masks_beside(root, _items(root, found, splitting, label=0), kind)


def with_val(splits: Mapping[str, list[Item]], splitting: Splitting) -> dict[str, list[Item]]:
    """The splits, a share of the patients of `train` moved to `val`.

    Raises:
        UserError: there is one patient only.
    """
    groups = {item.group for item in splits["train"]}
    if len(groups) < 2:
        raise UserError(
            "split 'train' is of one patient; give at least two, so that one can be validated on. "
            f"{SEVERAL_UNDER_ONE_NAME}"
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


def _normal_items(root: Path, split: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    folders = find_folders(split)
    check_spellings(split, splitting.normal_words)
    strange = [folder.name for folder in folders if not splitting.is_normal(folder.name)]
    if strange:
        raise UserError(
            f"{split}: holds '{strange[0]}'; only normal images are learnt from: move it to "
            f"test/, or rename it to {splitting.normal_words[0]}."
        )
    found = _files(split, kind)
    if not found:
        raise UserError(f"{split}: {none_of(split, kind)}; {_LAYOUT}.")
    return _with_masks_beside(split, _items(root, found, splitting, label=0), kind)


def _with_masks_beside(folder: Path, items: list[Item], kind: Kind) -> list[Item]:
    """Normal scans with their masks: one that marks something is refused when it is read."""
    if kind != "nifti":
        return items
    beside = masks_beside(folder)
    return [dataclasses.replace(item, mask=beside.get(item.paths[0])) for item in items]


def _test_items(root: Path, test: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    folders = find_folders(test)
    check_spellings(test, splitting.normal_words)
    loose = [path for path in _files(test, kind) if path.parent == test]
    if loose:
        raise UserError(
            f"{loose[0]}: lies in test/ itself; put it into test/good/ or test/<another name>/, "
            "which says what it is."
        )
    items: list[Item] = []
    for folder in folders:
        found = _files(folder, kind)
        if not found:
            raise UserError(f"{folder}: {none_of(folder, kind)}; add some or remove the folder.")
        splitting.check_class(folder)
        normal = splitting.is_normal(folder.name)
        items += _items(root, found, splitting, label=0 if normal else 1)
    if not items:
        raise UserError(f"{test}: {none_of(test, kind)}; {_LAYOUT}.")
    return items


def _items(
    root: Path, paths: Iterable[Path], splitting: Splitting, label: int | None
) -> list[Item]:
    items = []
    for path in paths:
        place = path.relative_to(root).as_posix()
        place = path.name if place == "." else place
        group = splitting.patient_of(path, place)
        unnamed = group == place
        items.append(Item(place, group, paths=(path,), label=label, is_unnamed=unnamed))
    return items


def candidates(folder: Path, kind: Kind) -> list[Path]:
    """Images or scans below a folder, masks among them; of DICOM the folders that hold a series.

    Args:
        folder: where to look.
        kind: of the files.
    """
    paths = find_files(folder, FORMATS[kind].suffixes)
    if kind == "dicom":
        return sorted({path.parent for path in paths if dicom.may_be_dicom(path)})
    return paths


def _files(folder: Path, kind: Kind) -> list[Path]:
    """The candidates without files that are named as masks of scans."""
    paths = candidates(folder, kind)
    return part_scans(paths)[0] if kind == "nifti" else paths


def _flat(root: Path, splitting: Splitting) -> dict[str, list[Item]]:
    """Scans right in the root, those with a mask to be tested."""
    found = [path for path in _files(root, "nifti") if path.parent == root]
    if not found:
        return {}
    check_flat(root, FORMATS["nifti"].suffixes, _LAYOUT)
    beside = masks_beside(root)
    items = [
        dataclasses.replace(item, mask=mask, label=0 if mask is None else None)
        for item in _items(root, found, splitting, label=0)
        for mask in (beside.get(item.paths[0]),)
    ]
    _refuse_masks(root, {"": items}, kind="nifti")
    return draw_splits(items, splitting)


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
            "validate and to test. Add some, or say in which split each file is. "
            f"{SEVERAL_UNDER_ONE_NAME}"
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
