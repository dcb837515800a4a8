"""Where a file or folder that users name lies on this machine: its path, or the copy of its URL."""

import os
from pathlib import Path

from jaxad.storage import copies, data_copies, working_copies
from jaxad.storage.buckets import Objects, is_url
from jaxad.storage.paths import expand, in_copy


def locate(path: str | os.PathLike[str], what: str = "") -> Path:
    """Returns the path of a run's folder, of results, or of an exported file.

    A leading `~` is expanded. For an URL (`gs://`, `s3://`) it is that of a working copy.

    Raises:
        UserError: see `paths.expand`; or the bucket cannot be read. The message begins with `what`,
            the flag or field that holds the path.
    """
    if not is_url(path):
        return in_copy(expand(path, what))
    with copies.reported(os.fspath(path), what):
        return working_copies.open_copy(Objects.at(os.fspath(path), what))


def locate_data(path: str | os.PathLike[str], what: str = "", *, num_parts: int = 1) -> Path:
    """Returns the path of data, which are only read; see `locate`.

    For an URL it is that of a copy that stays on this machine; `num_parts` is as in
    `data_copies.open_copy`.
    """
    if not is_url(path):
        return in_copy(expand(path, what))
    with copies.reported(os.fspath(path), what):
        objects = Objects.at(os.fspath(path), what)
        return data_copies.open_copy(objects, num_parts=num_parts)
