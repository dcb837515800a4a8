"""Data sets that are a folder of images, NIfTI scans or DICOM series, sorted by folder names."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_pairs import NO_MASKS, masks_beside, separate_masks, with_masks
from jaxad.data.files.mask_search import leave_out_masks, refuse_masks
from jaxad.data.files.names import is_ground_truth, split_named
from jaxad.data.files.places import LAYOUT, TRUTH, check_flat, check_spellings, find_places
from jaxad.data.files.splitting import Splitting, draw_splits, with_val
from jaxad.data.files.tree import find_files, find_folders
from jaxad.data.files.unread import describe_content, none_of
from jaxad.data.readers import dicom
from jaxad.errors import UserError

#: What to do with images without labels.
WITHOUT_LABELS = "To score files without labels, use --mode=score."

#: What to do with a mask among images.
_REMEDIES: Mapping[Kind, str] = {
    "image": "move masks of test images to ground_truth/<name>/, and all others away",
    "nifti": "name the mask of a scan <scan>_mask.nii.gz, beside it, and move all others away",
    "dicom": "move it away: masks of series are NIfTI files in ground_truth/<name>/",
}


def read_folder(
    root: Path, kind: Kind, splitting: Splitting, *, test_only: bool = False
) -> dict[str, list[Item]]:
    """Lists the items of a folder by split: `train`, `val` and, if there is one, `test`.

    Files lie in `train/good`, `val/good` (without it, a share of the patients of `train` is taken),
    `test/good` and `test/<any other name>`, masks in `ground_truth/<name>` under the name of their
    image, with or without `_mask`. Scans may also lie directly in the root, with masks beside them
    (`<name>_mask.nii.gz`): scans with a mask are tested, the others are normal. Letter case does
    not count in names of folders; see `find_places`.

    With `test_only`, `train` and `val` may be missing and are not drawn, scans in the root are all
    tested, and the folders of classes may lie in the root itself.

    Raises:
        UserError: the layout is another one, a class has no files, `train` or `val` has anomalous
            ones, a mask lies among images, or, with `test_only`, nothing gives the labels.
    """
    if not root.is_dir():
        raise UserError(
            f"config.data.root '{root}': is a file; name a folder, a table or an .npz file."
        )
    splits_named = {split_named(path.name) for path in find_folders(root)}
    is_sorted = bool(splits_named & ({"train", "val", "test"} if test_only else {"train"}))
    if kind == "nifti" and not is_sorted and (splits := _read_flat(root, splitting, test_only)):
        return splits
    places = find_places(root, FORMATS[kind].suffixes, test_only=test_only)
    if test_only and not is_sorted:
        splitting.check_listed({path.name for path in find_folders(root)}, str(root), "folder")
        _check_classes(root, splitting)
        places = {**places, "test": root}
    if "train" not in places and not test_only:
        content = "" if _find_data(root, kind) else describe_content(root, kind)
        raise UserError(f"config.data.root '{root}': has no folder train{content}; {LAYOUT}.")
    folders = [folder for name in places if name != TRUTH for folder in find_folders(places[name])]
    names = {folder.name for folder in folders if not is_ground_truth(folder.name)}
    splitting.check_listed(names, str(root), "folder")
    splits = {
        name: _normal_items(root, places[name], kind, splitting)
        for name in ("train", "val")
        if name in places
    }
    if "test" in places:
        splits["test"] = _test_items(root, places["test"], kind, splitting)
    paths = [path for items in splits.values() for item in items for path in item.paths]
    refuse_masks(paths, kind, root, _REMEDIES[kind])
    if "test" in places:
        splits["test"] = with_masks(splits["test"], kind, places["test"], places.get(TRUTH))
    return splits if "val" in places or test_only else with_val(splits, splitting)


def _check_classes(root: Path, splitting: Splitting) -> None:
    """Raises a UserError unless a folder in the root is normal, so that the folders are classes."""
    if any(splitting.is_normal(folder.name) for folder in find_folders(root)):
        return
    raise UserError(
        f"config.data.root '{root}': its folders give no labels, because it has no folder test and "
        f"none that is named {splitting.normal_words[0]}; put normal images into "
        f"{splitting.normal_words[0]}/ and others into folders of other names (or, if all are "
        "anomalous, into test/<name>/), or list the normal folders in config.data.normal_classes. "
        f"{WITHOUT_LABELS}"
    )


def _read_flat(root: Path, splitting: Splitting, test_only: bool) -> dict[str, list[Item]]:
    """Draws splits from scans that lie directly in the root; scans with a mask go to test."""
    scans = [path for path in _find_data(root, "nifti") if path.parent == root]
    if not scans:
        return {}
    check_flat(root, FORMATS["nifti"].suffixes)
    items = _with_masks_beside(root, _items(root, scans, splitting, label=0), "nifti")
    items = [dataclasses.replace(item, label=None) if item.mask else item for item in items]
    refuse_masks(scans, "nifti", root, _REMEDIES["nifti"])
    if not test_only:
        return draw_splits(items, splitting)
    if all(item.mask is None for item in items):
        raise UserError(
            f"config.data.root '{root}': no scan has a mask beside it, so there are no labels; put "
            f"scans into test/good/ and test/<any other name>/. {WITHOUT_LABELS}"
        )
    return {"test": items}


def read_any_folder(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Lists every file to score below a folder, even in formats that jaxad does not read.

    Masks are left out, and a message is logged for them.

    Raises:
        UserError: there are no files.
    """
    if kind == "dicom":
        paths = candidates(root, kind)
    else:
        paths = find_files(root, (*FORMATS[kind].suffixes, *FORMATS[kind].others))
    paths = leave_out_masks(paths, kind, root)
    if not paths:
        raise UserError(f"{root}: {none_of(root, kind)}; name a folder that does.")
    return _items(root, paths, splitting, label=0)


def read_normal_folder(root: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Lists every file below a folder of another site as normal; scans keep their masks.

    Raises:
        UserError: there are no files, or a mask among them belongs to no scan.
    """
    truth = next((path for path in find_folders(root) if is_ground_truth(path.name)), None)
    if truth is not None:
        raise UserError(
            f"{root}: holds {truth.name}/, so it does not hold only normal images; name a folder "
            "inside it."
        )
    paths = _find_data(root, kind)
    if not paths:
        raise UserError(f"{root}: {none_of(root, kind)}; name a folder of normal ones.")
    refuse_masks(paths, kind, root, NO_MASKS)
    return _with_masks_beside(root, _items(root, paths, splitting, label=0), kind)


def candidates(folder: Path, kind: Kind) -> list[Path]:
    """Returns the images or scans below a folder, masks included; for DICOM, folders of series."""
    paths = find_files(folder, FORMATS[kind].suffixes)
    if kind == "dicom":
        return sorted({path.parent for path in paths if dicom.may_be_dicom(path)})
    return paths


def _find_data(folder: Path, kind: Kind) -> list[Path]:
    """Returns the candidates whose names are not those of masks of scans."""
    paths = candidates(folder, kind)
    return separate_masks(paths)[0] if kind == "nifti" else paths


def _items(root: Path, paths: Iterable[Path], splitting: Splitting, label: int) -> list[Item]:
    items = []
    for path in paths:
        place = path.name if path == root else path.relative_to(root).as_posix()
        group = splitting.patient_of(path, place)
        items.append(Item(place, group, (path,), label, is_unnamed=group == place))
    return items


def _with_masks_beside(folder: Path, items: list[Item], kind: Kind) -> list[Item]:
    """Adds the masks beside scans; reading the items later rejects normal scans with marks."""
    if kind != "nifti":
        return items
    masks = masks_beside(folder)
    return [dataclasses.replace(item, mask=masks.get(item.paths[0])) for item in items]


def _normal_items(root: Path, split: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Lists the items of `train` or `val`."""
    check_spellings(split, splitting.normal_words)
    names = [folder.name for folder in find_folders(split)]
    others = tuple(name for name in names if not splitting.is_normal(name))
    if others:
        known = tuple(name for name in names if splitting.is_normal(name))
        classes = (*(splitting.normal_classes or known), *others)
        raise UserError(
            f"{split}: holds '{others[0]}', but only normal images are used for training; if it "
            f"holds normal images, set config.data.normal_classes={classes}; otherwise move it to "
            "test/."
        )
    paths = _find_data(split, kind)
    if not paths:
        raise UserError(f"{split}: {none_of(split, kind)}; {LAYOUT}.")
    return _with_masks_beside(split, _items(root, paths, splitting, label=0), kind)


def _test_items(root: Path, test: Path, kind: Kind, splitting: Splitting) -> list[Item]:
    """Lists the items of `test`, labelled by their folders."""
    check_spellings(test, splitting.normal_words)
    loose = [path for path in _find_data(test, kind) if path.parent == test]
    if loose and test == root:
        raise UserError(
            f"{loose[0]}: lies beside the folders of the classes, so it has no label; move it into "
            "one of them."
        )
    if loose:
        raise UserError(
            f"{loose[0]}: lies in test/ itself; put it into test/good/ or test/<another name>/, "
            "which gives its label."
        )
    items: list[Item] = []
    classes = [folder.name for folder in find_folders(test)]
    for folder in find_folders(test):
        if test == root and is_ground_truth(folder.name):
            continue
        paths = _find_data(folder, kind)
        if not paths:
            raise UserError(f"{folder}: {none_of(folder, kind)}; add some or remove the folder.")
        splitting.check_class(folder.name, str(folder), classes)
        items += _items(root, paths, splitting, label=int(not splitting.is_normal(folder.name)))
    if not items:
        raise UserError(f"{test}: {none_of(test, kind)}; {LAYOUT}.")
    return items
