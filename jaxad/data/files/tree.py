"""Files and folders below a folder, in a fixed order, without hidden ones and jaxad's own output.

Runs and scores may be written into a folder of data; their pictures are no data.

A folder that cannot be read is a UserError, and so are links that form a loop.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxad.data.readers.checks import is_hidden
from jaxad.errors import UserError, suggest
from jaxad.storage.paths import is_output

#: Folders with pictures and arrays in a folder that jaxad wrote, and the files of an inspection.
_OUTPUTS = ("maps", "figures", "eval", "inspect.png", "inspect.json", "duplicates.csv")


def check_not_hidden(path: Path) -> None:
    """Raises a UserError for a hidden file; operating systems leave such files beside others."""
    if is_hidden(path.name) and path.is_file():
        raise UserError(
            f"{path}: is a hidden file, probably made by the operating system; name the file "
            "beside it, or rename it."
        )


def describe_missing(path: Path, flag: str = "") -> str:
    """Returns that nothing is at a path, and the most similar name beside it.

    `flag` is how the user sets the path; "" if it is not known.
    """
    parent = path.parent
    remedy = f" set {flag} to where the data are." if flag else " name an existing one."
    if not parent.is_dir():
        return f"no such file or folder, nor '{parent}';{remedy}"
    known = [entry.name for entry in _entries(parent)]
    return f"no such file or folder;{suggest(path.name, known, f'{parent}/') or remedy}"


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files below a folder whose names end with a suffix, sorted; follows links."""
    paths = [path for path in _walk(folder, ()) if path.name.lower().endswith(tuple(suffixes))]
    return sorted(paths, key=lambda path: path.relative_to(folder).parts)


def files_in(folder: Path, suffixes: str | tuple[str, ...]) -> list[Path]:
    """Returns the files directly in a folder that end with a suffix, sorted."""
    return [
        path
        for path in _entries(folder)
        if path.name.lower().endswith(suffixes) and not path.is_dir()
    ]


def find_folders(folder: Path) -> list[Path]:
    """Returns the folders directly in a folder, sorted."""
    try:
        return [path for path in _entries(folder) if path.is_dir() and not is_output(path)]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make it readable.") from error


def _entries(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
        if is_output(folder):  # the folder of the data is also the one of scores or a run
            paths = [path for path in paths if path.name not in _OUTPUTS]
        return paths
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no such folder; name an existing one.") from error
    except NotADirectoryError as error:
        raise UserError(f"{folder}: not a folder; name a folder.") from error
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make it readable.") from error


def _walk(folder: Path, parents: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yields all files below a folder; `parents` are the device and inode of folders above it."""
    entries = _entries(folder)
    status = folder.stat()
    key = (status.st_dev, status.st_ino)
    if key in parents:
        raise _loop(folder)
    for path in entries:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            # Other faults, such as a link to nothing, are reported when the file is read.
            if error.errno == errno.ELOOP:
                raise _loop(path) from error
            is_folder = False
        if is_folder and is_output(path):
            continue
        if is_folder:
            yield from _walk(path, (*parents, key))
        else:
            yield path


def _loop(path: Path) -> UserError:
    return UserError(f"{path}: a symbolic link that leads back to itself; remove it.")


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Returns eight hexadecimal digits that change if a file is added, removed or written.

    They depend on path, size, modification time and readability, not on contents.
    """
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(paths):
        try:
            status = path.stat()
        except OSError:
            status = None
        place = os.path.relpath(path, root)
        state = (status.st_size, status.st_mtime_ns, os.access(path, os.R_OK)) if status else None
        digest.update(f"{place}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
