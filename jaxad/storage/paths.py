"""Paths as users write them: `~`, names that are not text, and names that look like patterns."""

import functools
import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxad.errors import UserError

#: First folders that `etils.epath`, which Orbax uses, takes for storage in a cloud.
_CLOUD_ROOTS = ("gs", "s3", "az", "hf")


def expand(path: str | os.PathLike[str], what: str = "") -> Path:
    """The path with a leading `~` or `~user` replaced by that home folder.

    A folder whose name starts with `~` is written as text that starts with `./~`. Its path comes
    back absolute, so that it stays the same when it is expanded again.

    Args:
        path: as the user wrote it.
        what: the flag or the field that holds it, for the message.

    Returns:
        The path.

    Raises:
        UserError: there is no such user, or this user has no home folder.
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
    found = Path(text)
    return found.absolute() if str(found).startswith("~") else found


def check_name(path: Path, what: str, *, for_checkpoints: bool = True) -> None:
    """Checks that the libraries that write checkpoints or data below a folder take its name.

    They take UTF-8 alone, and TensorStore, which writes checkpoints, reads a backslash as a slash.

    Args:
        path: of the folder.
        what: how the message calls it, with the flag or field to change.
        for_checkpoints: whether checkpoints are written there.

    Raises:
        UserError: they do not.
    """
    full = Path(os.path.abspath(path))  # noqa: PTH100 without `..`, links stay
    if is_undecodable(str(full)):
        name = readable(str(full))
        if name.encode() == os.fsencode(full):
            raise UserError(
                f"{what} '{name}': Python takes names of files for "
                f"{sys.getfilesystemencoding()} here; set PYTHONUTF8=1, or choose another."
            )
        raise UserError(f"{what} '{name}': its name is not UTF-8; rename it, or choose another.")
    if for_checkpoints and "\\" in str(full):
        raise UserError(
            f"{what} '{path}': its path has a backslash, which TensorStore reads as a "
            "slash; choose another."
        )
    if full.parts[1:2] and full.parts[1] in _CLOUD_ROOTS:
        raise UserError(
            f"{what} '{path}': Orbax and TFDS take '/{full.parts[1]}' for storage in a cloud; "
            "choose another."
        )


def is_undecodable(text: str) -> bool:
    """Whether text has characters that UTF-8 cannot hold, as names of files may have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def readable(name: str) -> str:
    r"""A name as text that any file can hold: bytes that are not UTF-8 become `\xff`.

    Where the system's encoding is not UTF-8 (`LC_ALL=C`), names that are come back as they are.
    """
    if not is_undecodable(name):
        return name
    content = name.encode(errors="surrogatepass")
    try:
        content = os.fsencode(name)
    except UnicodeEncodeError:  # no name of a file
        return content.decode(errors="backslashreplace")
    return content.decode(errors="backslashreplace")


@functools.cache
def take_folders_literally() -> None:
    """Lets `etils.epath` list folders whose names have `*`, `?` or `[`, for good.

    `epath.Path.glob` reads the folder's own path as a part of the pattern. Orbax and TFDS find
    their files with it: in a folder `lr=[0.1]` they would find none, in `a*` those of other runs.
    """
    from etils.epath import gpath

    if not hasattr(gpath, "PosixGPath"):  # it is no public name
        return
    real = gpath.PosixGPath.glob

    def glob_below(self: Any, pattern: str) -> Iterator[Any]:
        place = os.fspath(self)
        is_folder = os.path.isdir(place)  # noqa: PTH112 else it is a pattern, as etils takes it
        if not is_folder or "**" in pattern or os.path.isabs(pattern):  # noqa: PTH117
            yield from real(self, pattern)
            return
        for name in glob.glob(pattern, root_dir=place):  # noqa: PTH207 names below a folder
            yield self / name

    gpath.PosixGPath.glob = glob_below
