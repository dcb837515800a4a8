"""Data copies: data in a bucket are read from a copy that stays on this machine.

The copy lies below the cache folder, is shared by all processes of the machine, and is made equal
to the bucket when a command first meets the URL.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from jaxad.runtime import locks
from jaxad.storage import copies
from jaxad.storage.buckets import Object, Objects, StoreError
from jaxad.storage.copies import Copy
from jaxad.storage.paths import CopyPath

logger = logging.getLogger(__name__)

#: Seconds for which a copy counts as equal to the bucket.
_FRESH_SECONDS = 60.0

#: What is downloaded before it is put in place.
_PART_BYTES, _PART_FILES = 2**30, 1024

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
            for leftover in self.place.glob("pull-*"):  # of a process that was killed
                shutil.rmtree(leftover)
            self.versions = {}
            with contextlib.suppress(OSError, ValueError):
                self.versions = json.loads(self._index.read_text(encoding="utf-8"))
            changed = super().pull()
            if changed:
                self._write_index(self.versions)
        return changed

    def _download(self, wanted: Mapping[str, Object]) -> set[str]:
        """Downloads objects in parts, so that the next pull continues one that was killed."""
        missing: set[str] = set()
        part: dict[str, Object] = {}
        size = 0
        for name, item in wanted.items():
            part[name] = item
            size += item.size
            if size >= _PART_BYTES or len(part) >= _PART_FILES:
                missing |= self._download_part(part)
                part, size = {}, 0
        return missing | self._download_part(part)

    def _download_part(self, wanted: Mapping[str, Object]) -> set[str]:
        # Names without a version: if this is killed, the next pull knows that their files, if they
        # exist, came from the bucket.
        self._write_index(self.versions | dict.fromkeys(wanted, ""))
        return super()._download(wanted)

    def _write_index(self, versions: Mapping[str, str]) -> None:
        part = self._index.with_suffix(".part")
        part.write_text(json.dumps(versions), encoding="utf-8")
        part.replace(self._index)

    def push(self) -> None:
        """Uploads the files that the bucket lacks, except hidden and incomplete ones."""
        with self._locked():
            before = self.objects.find()
            files = [path for path in self.root.rglob("*") if path.is_file()]
            files.sort(key=lambda path: (path.stat().st_mtime_ns, path.suffix == ".json"))
            paths = {path.relative_to(self.root).as_posix(): path for path in files}
            new = {n: p for n, p in paths.items() if n not in before and not _is_incomplete(n)}
            if new:
                copies.put_in_order(self.objects, new)
                after = self.objects.find()
                # They need not be downloaded.
                self.versions |= {name: after[name].version for name in new if name in after}
                self._write_index(self.versions)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        message = f"data: waiting for another process that copies '{self.objects.url}'."
        return locks.wait_for_lock(self.place / "lock", message)


def _is_incomplete(name: str) -> bool:
    """Tells whether a file is hidden, or in a folder that TFDS is writing."""
    return any(part.startswith((".", "incomplete.")) for part in name.split("/"))


def open_copy(objects: Objects, *, num_parts: int = 1) -> CopyPath:
    """Returns the copy of a file or folder in a bucket, equal to it.

    Its path ends with the last `num_parts` parts of the URL.

    Raises:
        StoreError: the bucket cannot be read, and this process has not read it before.
    """
    copy, pulled = _copies.get(objects.url, (None, float("-inf")))
    copy = DataCopy(objects, num_parts) if copy is None else copy
    if time.monotonic() - pulled > _FRESH_SECONDS:
        try:
            copy.pull()
        except StoreError as error:
            if objects.url not in _copies:
                raise
            # A long command need not fail because it asks for the same data again.
            logger.warning(f"warning: '{objects.url}': {error}; the copy of before is used.")
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
