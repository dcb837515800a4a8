"""Paths that users write: `~`, names that are not UTF-8, and names that look like patterns."""

import functools
import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxad.errors import UserError

#: First folders of a path that `etils.epath`, which Orbax uses, takes for cloud storage.
_CLOUD_ROOTS = ("gs", "s3", "az", "hf")


def expand(path: str | os.PathLike[str], what: str = "") -> Path:
    """Replaces a leading `~` or `~user` by that home folder.

    For a folder whose own name starts with `~`, users write `./~`. Its path is returned absolute,
    so that it stays the same when it is expanded again.

    Raises:
        UserError: there is no such user, or this user has no home folder; the message begins with
            `what`, the flag or field that holds the path.
    """
    text = os.fspath(path)
    if text.startswith("~"):
        try:
            return Path(text).expanduser()
        except RuntimeError as error:
            name = Path(text).parts[0]
            reason = "this user has no home folder" if name == "~" else f"there is no user '{name}'"
            raise UserError(
                f"{what and f'{what}: '}'{text}': {reason}; write the path in full, or as "
                f"'./{text}' if a folder is really named '{name}'."
            ) from error
    expanded = Path(text)
    return expanded.absolute() if str(expanded).startswith("~") else expanded


#: Root of a local copy -> the URL that it is a copy of.
_URLS: dict[str, str] = {}


class CopyPath(type(Path())):  # type: ignore[misc]  # PosixPath, whose name depends on the system
    """A path in a local copy of a bucket: f-strings, and so messages, show the URL instead."""

    def __format__(self, spec: str) -> str:
        return format(show(str(self)), spec)


def add_copy(root: Path, url: str) -> CopyPath:
    """Makes messages show a URL instead of its local copy; returns the root of the copy."""
    _URLS[str(root)] = url
    return CopyPath(root)


def in_copy(path: Path) -> Path:
    """Returns the path as a CopyPath if it lies in a copy."""
    return CopyPath(path) if any(path.is_relative_to(root) for root in _URLS) else path


def show(text: str) -> str:
    """Returns text with local copies replaced by their URLs."""
    for root, url in _URLS.items():
        text = text.replace(root, url)
    return text


def original(path: Path) -> Path:
    """Resolves a path; one in a copy becomes its URL as a path, which other copies have, too."""
    return Path(show(str(path.resolve())))


#: Two entries that folders written by jaxad have: of a run, a study, scores, an inspection and an
#: evaluation of an exported file.
_OUTPUTS = (
    ("config.json", "checkpoints"),
    ("study.json", "runs"),
    ("progress.json", "scores.csv"),
    ("inspect.json", "inspect.png"),
    ("eval", "report.html"),
)


def is_output(folder: Path) -> bool:
    """Tells whether jaxad wrote a folder, such as that of a run."""
    try:
        return any(all((folder / name).exists() for name in names) for names in _OUTPUTS)
    except OSError:  # it cannot be read, which is reported where it is
        return False


def check_name(path: Path, what: str, *, for_checkpoints: bool = True) -> None:
    """Raises a UserError if libraries that write checkpoints or data reject the name of a folder.

    They accept only UTF-8, and TensorStore, which writes checkpoints, reads a backslash as a slash.
    """
    full = Path(os.path.abspath(path))  # noqa: PTH100 - removes `..` and keeps links
    if is_undecodable(str(full)):
        name = readable(str(full))
        if name.encode() == os.fsencode(full):
            raise UserError(
                f"{what} '{name}': Python reads file names as {sys.getfilesystemencoding()} here; "
                "set PYTHONUTF8=1, or choose another."
            )
        raise UserError(f"{what} '{name}': its name is not UTF-8; rename it, or choose another.")
    if for_checkpoints and "\\" in str(full):
        raise UserError(
            f"{what} '{path}': its path has a backslash, which TensorStore reads as a slash; "
            "choose another."
        )
    if full.parts[1:2] and full.parts[1] in _CLOUD_ROOTS:
        raise UserError(
            f"{what} '{path}': Orbax and TFDS take '/{full.parts[1]}' for cloud storage; choose "
            "another."
        )


def is_undecodable(text: str) -> bool:
    """Tells whether text has characters that UTF-8 cannot encode, as file names may have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def readable(name: str) -> str:
    r"""Returns a name as text that UTF-8 can encode: other bytes become text such as `\xff`.

    A name that is UTF-8 is unchanged, also where the system's encoding is another (`LC_ALL=C`).
    """
    if not is_undecodable(name):
        return name
    try:
        content = os.fsencode(name)
    except UnicodeEncodeError:  # not a file name
        content = name.encode(errors="surrogatepass")
    return content.decode(errors="backslashreplace")


@functools.cache
def take_folders_literally() -> None:
    """Makes `etils.epath` list folders whose names have `*`, `?`, or `[`; for the whole process.

    `epath.Path.glob` treats the path of the folder as part of the pattern. Orbax and TFDS find
    their files with it: in a folder `lr=[0.1]` they would find none, in `a*` those of other runs.
    """
    from etils.epath import gpath

    if not hasattr(gpath, "PosixGPath"):  # not a public name
        return
    original = gpath.PosixGPath.glob

    def glob_below(self: Any, pattern: str) -> Iterator[Any]:
        folder = os.fspath(self)
        is_folder = os.path.isdir(folder)  # noqa: PTH112 - without permission it is a pattern
        if not is_folder or "**" in pattern or Path(pattern).is_absolute():
            yield from original(self, pattern)
            return
        for name in glob.glob(pattern, root_dir=folder):  # noqa: PTH207 - names below a folder
            yield self / name

    gpath.PosixGPath.glob = glob_below
