"""Data copies: data in a bucket are read from a copy that stays on this machine.

The copy lies below the cache folder, is shared by all processes of the machine, and is made equal
to the bucket when a command first meets the URL.
"""

import contextlib
import hashlib
import json
import time
from pathlib import Path

from jaxad.runtime import locks
from jaxad.storage import copies
from jaxad.storage.buckets import Objects
from jaxad.storage.copies import Copy
from jaxad.storage.paths import CopyPath

#: Seconds for which a copy counts as equal to the bucket.
_FRESH_SECONDS = 60.0

#: URL -> its copy and when it was last made equal to the bucket.
_copies: dict[str, tuple["DataCopy", float]] = {}


class DataCopy(Copy):
    """A copy of data that stays."""

    def __init__(self, objects: Objects, num_parts: int):
        digest = hashlib.blake2b(objects.url.encode(), digest_size=8).hexdigest()
        place = copies.base_folder() / f"data-{digest}"
        place.mkdir(exist_ok=True)
        self._index = place / "versions.json"
        super().__init__(objects, place, num_parts=num_parts)

    def pull(self) -> set[str]:
        """Makes the copy equal to the bucket; returns the names of all objects that changed."""
        with self._locked():
            self.versions = {}
            with contextlib.suppress(OSError, ValueError):
                self.versions = json.loads(self._index.read_text(encoding="utf-8"))
            changed = super().pull()
            if changed:
                part = self._index.with_suffix(".part")
                part.write_text(json.dumps(self.versions), encoding="utf-8")
                part.replace(self._index)
        return changed

    def push(self) -> None:
        """Uploads the files that the bucket lacks."""
        with self._locked():
            files = [path for path in self.root.rglob("*") if path.is_file()]
            files.sort(key=lambda path: path.stat().st_mtime_ns)
            paths = {path.relative_to(self.root).as_posix(): path for path in files}
            new = {n: p for n, p in paths.items() if n not in self.versions and p.name[0] != "."}
            copies.put_in_order(self.objects, new)
        self.pull()

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        message = f"data: waiting for another process that copies '{self.objects.url}'."
        return locks.wait_for_lock(self.place / "lock", message)


def open_copy(objects: Objects, *, num_parts: int = 1) -> CopyPath:
    """Returns the copy of a file or folder in a bucket, equal to it.

    Its path ends with the last `num_parts` parts of the URL.

    Raises:
        StoreError: the bucket cannot be read.
    """
    copy, pulled = _copies.get(objects.url, (None, float("-inf")))
    copy = DataCopy(objects, num_parts) if copy is None else copy
    if time.monotonic() - pulled > _FRESH_SECONDS:
        copy.pull()
        _copies[objects.url] = copy, time.monotonic()
    return copy.root


def push(folder: Path) -> None:
    """Uploads the new files of a folder that `open_copy` returned; nothing for any other folder.

    Raises:
        StoreError: the bucket cannot be written.
    """
    for copy, _ in _copies.values():
        if folder == copy.root:
            copy.push()
