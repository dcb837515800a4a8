"""Checks of another site's images: none are a run's own, and normal ones hold no anomalies."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jaxad.data.files import names
from jaxad.data.files.mask_pairs import NO_MASKS
from jaxad.data.files.splitting import Splitting
from jaxad.data.files.tables import files_listed
from jaxad.data.files.tree import files_in
from jaxad.errors import UserError
from jaxad.storage.locations import locate_data


def check_apart(path: Path, root: str, *, is_npz: bool, flag: str, remedy: str) -> None:
    """Checks that images of another site, at the path in a flag, are not a run's own data.

    The run's data are at `root`, as its config names it; with `is_npz`, they are only the `.npz`
    files there. `remedy` ends the message.

    Raises:
        UserError: the path lies in the run's data, holds them, or lists a file of theirs.
    """
    paths, run_paths = _files_at(path), _files_of_run(locate_data(root, "config.data.root"), is_npz)
    inside = _first_below(paths, run_paths)
    if inside is None and _first_below(run_paths, paths) is None:
        return
    relation = "holds"
    if inside is not None:
        relation = "lies in" if inside == path.resolve() else f"lists '{inside}' of"
    raise UserError(f"{flag}={path}: {relation} the run's own data, '{root}'; {remedy}.")


def _files_of_run(root: Path, is_npz: bool) -> set[Path]:
    """Returns the files or the folder of a run's data; nothing if they are gone."""
    if is_npz:
        return {path.resolve() for path in files_in(root, ".npz")} if root.is_dir() else set()
    return _files_at(root) if root.exists() else set()


def _files_at(path: Path) -> set[Path]:
    """Returns a folder or a file; for a table, also the files that it lists."""
    listed = files_listed(path) if names.is_table(path) and path.is_file() else ()
    return {path.resolve(), *(file.resolve() for file in listed)}


def _first_below(paths: Iterable[Path], folders: Collection[Path]) -> Path | None:
    """Returns the first path, in order, that is or lies below one of some folders."""
    return next(
        (path for path in sorted(paths) if any(up in folders for up in (path, *path.parents))), None
    )


def check_one_class(root: Path, paths: Sequence[Path], splitting: Splitting) -> None:
    """Checks that names of folders do not divide files or DICOM series into normal and other ones.

    Raises:
        UserError: some files lie in a folder whose name says that they are normal, and some do not.
    """
    folders = {path if path.is_dir() else path.parent for path in paths}
    below = sorted(folder.relative_to(root) for folder in folders if folder != root)
    is_listed = any(splitting.is_normal(part) for folder in below for part in folder.parts)

    def is_normal(name: str) -> bool:
        # If the names are those of `config.data.normal_classes`, no others are normal.
        is_guess = not (is_listed and splitting.normal_classes) and names.suggests_normal(name)
        return splitting.is_normal(name) or is_guess

    normal = [folder for folder in below if any(map(is_normal, folder.parts))]
    others = [folder for folder in below if not any(map(is_normal, folder.parts))]
    if normal and others:
        raise UserError(
            f"{root}: holds '{_shortest(others[0], normal)}' beside "
            f"'{_shortest(normal[0], others)}', so not all in it may be normal; name the normal "
            "folder, or move what is not normal away."
        )


def _shortest(folder: Path, others: Sequence[Path]) -> str:
    """Returns the topmost parent that holds none of the others: `NORMAL` for `NORMAL/patient_1`."""
    parents = [*reversed(folder.parents)][1:]
    apart = (up for up in parents if not any(other.is_relative_to(up) for other in others))
    return next(apart, folder).as_posix()


def refuse_named_masks(masks: Sequence[Path], name: str) -> None:
    """Raises a UserError for masks of scans: names in this data set do not tell what they mark."""
    if masks:
        more = f" (and {len(masks) - 1:,} more)" if len(masks) > 1 else ""
        raise UserError(
            f"{masks[0]}: is named like a mask{more}, but a run on {name} calibrates on scans that "
            f"are normal throughout; {NO_MASKS}, together with the scans in which they mark "
            "anything."
        )
