"""Where a file or folder that users name lies on this machine: its path, or the copy of its URL."""

import os
import re
from pathlib import Path

from jaxad.errors import UserError
from jaxad.storage import copies, data_copies, paths, working_copies
from jaxad.storage.buckets import Objects, is_url
from jaxad.storage.paths import expand, in_copy


def locate(path: str | os.PathLike[str], what: str = "") -> Path:
    """Returns the path of a run's folder, of results, or of an exported file.

    A leading `~` is expanded. For a URL (`gs://`, `s3://`) it is that of a working copy.

    Raises:
        UserError: see `paths.expand`; or the bucket cannot be read. The message begins with `what`,
            the flag or field that holds the path.
    """
    if not is_url(path):
        return _locate_here(path, what)
    with copies.reported(os.fspath(path), what):
        return working_copies.open_copy(Objects.at(os.fspath(path), what))


def locate_data(path: str | os.PathLike[str], what: str = "", *, num_parts: int = 1) -> Path:
    """Returns the path of data, which are only read; see `locate`.

    For a URL it is that of a copy that stays on this machine; `num_parts` is as in
    `data_copies.open_copy`. With a table, all of its folder is copied: it names files in there.
    """
    if not is_url(path):
        return _locate_here(path, what)
    with copies.reported(os.fspath(path), what):
        objects = Objects.at(os.fspath(path), what)
        folder = Objects(objects.url.rpartition("/")[0])
        if objects.name.lower().endswith(".csv") and folder.name:  # and no bucket of this name
            return data_copies.open_copy(folder) / objects.name
        return data_copies.open_copy(objects, num_parts=num_parts)


def original(path: str, what: str = "") -> Path:
    """Returns what `paths.original` returns for the path that `locate_data` returns.

    Nothing is copied.
    """
    if not is_url(path):
        return paths.original(_locate_here(path, what))
    return Path(Objects.at(path, what).url)


def _locate_here(path: str | os.PathLike[str], what: str) -> Path:
    text = os.fspath(path)
    if re.match(r"(gs|s3):/[^/]", text):  # pathlib merges slashes
        prefix, url = f"{what}: " if what else "", text.replace(":/", "://", 1)
        raise UserError(f"{prefix}'{text}': write it as text, '{url}', not as a Path.")
    return in_copy(expand(path, what))
