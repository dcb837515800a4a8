"""Folders of users: the files below one, in a fixed order, and what is wrong with it."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxad.errors import UserError

#: What systems and archives leave beside files, beside what starts with a dot.
_COMPANIONS = frozenset(
    (
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle",
        "$recycle.bin", "system volume information", "lost+found", "__pycache__", "icon\r",
    )
)  # fmt: skip


def is_hidden(name: str) -> bool:
    """Whether a file or a folder of this name is no part of a data set, such as `._x.png`."""
    return name.startswith(".") or name.lower() in _COMPANIONS


def check_not_hidden(path: Path) -> None:
    """Raises a UserError for a hidden file, such as systems leave beside others."""
    if is_hidden(path.name) and path.is_file():
        raise UserError(
            f"{path}: is a hidden file, such as systems leave beside others; name the file that it "
            "lies beside, or rename it."
        )


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files below a folder whose names end so, in the order of their paths.

    Links are followed; hidden files and folders are passed over.

    Raises:
        UserError: the folder cannot be read, or links form a loop.
    """
    found = [path for path in _walk(folder, ()) if path.name.lower().endswith(tuple(suffixes))]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files right in a folder whose names end so, in the order of their names; not hidden ones.

    Raises:
        UserError: the folder cannot be read.
    """
    return [
        path
        for path in _entries(folder)
        if path.name.lower().endswith(suffix) and not path.is_dir()
    ]


def find_folders(folder: Path) -> list[Path]:
    """The folders right below a folder, in the order of their names; hidden ones are passed over.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return [path for path in _entries(folder) if path.is_dir()]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make it readable.") from error


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no such folder; name one that is there.") from error
    except NotADirectoryError as error:
        raise UserError(f"{folder}: is no folder; name one.") from error
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make it readable.") from error


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterable[Path]:
    """All files below a folder; `above` are the folders that it is in, by device and number."""
    entries = _entries(folder)
    status = folder.stat()
    key = (status.st_dev, status.st_ino)
    if key in above:
        raise _loop(folder)
    for path in entries:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            # What else is wrong with it (a link to nothing, say) is told when it is read.
            if error.errno == errno.ELOOP:
                raise _loop(path) from error
            is_folder = False
        if is_folder:
            yield from _walk(path, (*above, key))
        else:
            yield path


def _loop(path: Path) -> UserError:
    return UserError(f"{path}: a symbolic link that leads back to itself; remove it.")


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Eight hexadecimal digits that change where a file is added, removed or written.

    By path, size, time of change and whether it can be read: contents are not read.
    """
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(paths):
        try:
            status = path.stat()
        except OSError:
            status = None
        place = os.path.relpath(path, root)
        what = (status.st_size, status.st_mtime_ns, os.access(path, os.R_OK)) if status else None
        digest.update(f"{place}\0{what}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def pick(keys: Iterable[str], shares: Sequence[float], seed: int) -> list[set[str]]:
    """Parts of a set of names, of given shares, the same for the same names in any order.

    Args:
        keys: names.
        shares: of the parts; what is left of the whole goes to a last part beside them.
        seed: of the draw.

    Returns:
        A set for each share, of at least one name where the share is above 0 and the names
        suffice, and one for the rest.
    """

    def draw(key: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{key}".encode(errors="surrogateescape")).digest()

    order = sorted(set(keys), key=draw)
    parts: list[set[str]] = []
    total = len(order)
    for share in shares:
        count = min(len(order), max(int(share > 0), round(total * share)))
        parts.append(set(order[:count]))
        order = order[count:]
    return [*parts, set(order)]
