"""Checks of another site's normal images: no hints at anomalies, none of the run's own data."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxad.data.data_sets import data_set_info
from jaxad.data.files import names
from jaxad.data.files.folders import Splitting
from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.mask_files import refuse_masks
from jaxad.data.files.tables import files_listed
from jaxad.data.files.tree import files_in
from jaxad.errors import UserError
from jaxad.storage.paths import expand

#: What to do with a mask among normal images.
MASK_REMEDY = "move masks away"


def check_apart(path: Path, data: ConfigDict) -> None:
    """Checks that normal images of another site are none of a run's own files.

    Args:
        path: the folder, the file or the table of the normal images.
        data: the run's.

    Raises:
        UserError: it lies in the data of the run, holds them, or lists a file of theirs.
    """
    given = _places(path)
    for name, root in ((data.name, data.root), (data.test.name, data.test.root)):
        own = _own_places(name, root) if name else set()
        inside = _first_below(given, own)
        if inside is None and _first_below(own, given) is None:
            continue
        what = "holds"
        if inside is not None:
            what = f"lists '{inside}' of" if inside != path.resolve() else "lies in"
        raise UserError(
            f"--normals={path}: {what} the run's own data, '{root or '.'}'; give normal images "
            "that are in none of its splits. --mode=evaluate calibrates on its own val."
        )


def _own_places(name: str, root: str) -> set[Path]:
    """The files or the folder that a data set is read from; nothing where they are gone."""
    if name == "npz":
        folder = expand(root or ".", "config.data.root")
        return {path.resolve() for path in files_in(folder, ".npz")} if folder.is_dir() else set()
    if data_set_info(name).file_format is None or not root:
        return set()
    place = expand(root, "config.data.root")
    return _places(place) if place.exists() else set()


def _places(path: Path) -> set[Path]:
    """A folder or a file; a table and the files that it lists."""
    listed = files_listed(path) if names.is_table(path) and path.is_file() else ()
    return {path.resolve(), *(file.resolve() for file in listed)}


def _first_below(paths: Iterable[Path], places: Collection[Path]) -> Path | None:
    """The first path, in order, that is one of some places or lies below one."""
    return next(
        (path for path in sorted(paths) if any(up in places for up in (path, *path.parents))), None
    )


def check_one_class(root: Path, paths: Sequence[Path], splitting: Splitting) -> None:
    """Checks that files are not parted into normal ones and others by the names of their folders.

    Args:
        root: the folder that is to hold normal ones alone.
        paths: the files below it, or the folders of DICOM series.
        splitting: says which names are normal.

    Raises:
        UserError: some lie in a folder that is named as normal, and some do not.
    """
    folders = {path if path.is_dir() else path.parent for path in paths}
    below = sorted(folder.relative_to(root) for folder in folders if folder != root)
    is_listed = any(splitting.is_normal(part) for folder in below for part in folder.parts)

    def is_normal(name: str) -> bool:
        if is_listed and splitting.normal_classes:
            return splitting.is_normal(name)
        return splitting.is_normal(name) or names.suggests_normal(name)

    normal: list[Path] = []
    others: list[Path] = []
    for folder in below:
        (normal if any(map(is_normal, folder.parts)) else others).append(folder)
    if normal and others:
        raise UserError(
            f"{root}: holds '{_shortest(others[0], normal)}' beside "
            f"'{_shortest(normal[0], others)}', so not all in it may be normal; name the normal "
            "folder, or move what is not normal away."
        )


def _shortest(folder: Path, others: Sequence[Path]) -> str:
    """The folder above that holds none of the others: `NORMAL` for `NORMAL/patient_1`."""
    above = [*reversed(folder.parents)][1:]
    held = (up for up in above if not any(other.is_relative_to(up) for other in others))
    return next(held, folder).as_posix()


def refuse_named_masks(masks: Sequence[Path], name: str) -> None:
    """Refuses masks of scans where a data set's names do not say which scan one marks.

    Args:
        masks: files that are named as masks.
        name: of the data set.

    Raises:
        UserError: there is one.
    """
    if masks:
        more = f" (and {len(masks) - 1:,} more)" if len(masks) > 1 else ""
        raise UserError(
            f"{masks[0]}: is named as a mask{more}, and a run on {name} calibrates on scans that "
            f"are normal throughout; {MASK_REMEDY}, and the scans of which they mark anything."
        )


def mask_beside(path: Path, kind: Kind) -> Path | None:
    """The mask of one file that is to be normal, beside it; None where there is none.

    Args:
        path: of an image or a scan.
        kind: of the file.

    Raises:
        UserError: an image has a mask, a scan has two, or one may be of the scan by its name.
    """
    suffixes = FORMATS[kind].suffixes
    files = [file for file in files_in(path.parent, "") if file.name.lower().endswith(suffixes)]
    files = [file for file in files if file.name != path.name]
    scan = names.plain(names.stem(path))
    named = [file for file in files if kind == "nifti" and names.is_named_as_mask(file)]
    masks = [file for file in named if names.marked_by(file) == scan]
    if len(masks) > 1:
        raise UserError(
            f"{masks[1]}: '{path.name}' has a mask already, '{masks[0].name}'; join them into one, "
            "or move one away."
        )
    stems = {names.plain(names.stem(file)) for file in files}
    for file in named:
        marked = names.marked_by(file)
        if file not in masks and marked not in stems and _starts_with(scan, marked):
            raise UserError(
                f"{file}: is named as a mask, and there is no scan '{marked}' beside it; name it "
                f"{scan}_mask{names.suffix(file)} if it marks '{path.name}', or move it away."
            )
    others = [file for file in files if file not in masks and _may_mark(file, path, files)]
    refuse_masks(others, kind, path.parent, MASK_REMEDY)
    return masks[0] if masks else None


def _starts_with(name: str, start: str) -> bool:
    words, first = names.words_of(name), names.words_of(start)
    return bool(first) and words[: len(first)] == first


def _may_mark(file: Path, path: Path, files: Sequence[Path]) -> bool:
    """Whether a file is the mask of another by its name, as `mask_0` is of `0`."""
    named = names.mask_name(names.stem(file))
    if named is None:
        return False
    # `segmentation` marks the one image that lies beside it.
    is_alone = all(names.mask_name(names.stem(other)) is not None for other in files)
    return names.words_of(names.stem(path)) in named.marked or (() in named.marked and is_alone)
