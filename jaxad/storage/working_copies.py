"""Working copies: a command that is given the URL of a folder works on a copy of it.

The bucket is authoritative. A command copies the folder when it first meets its URL, again when it
has locked the folder (`lease`), and from then on uploads what it writes: at every checkpoint, at
least every half minute while it logs, and when it releases the folder. A checkpoint is one object,
so that it is complete or absent. Objects are written in the order in which their files were, and
then the checkpoints: a log must not lack what was logged before a checkpoint. A command that is
killed leaves a state that it could also have left on a disk.
"""

import atexit
import concurrent.futures
import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxad.errors import RunError
from jaxad.runtime import interrupts, processes
from jaxad.storage import copies, lease
from jaxad.storage.buckets import Objects, Refused, StoreError
from jaxad.storage.copies import Copy
from jaxad.storage.paths import CopyPath, readable

logger = logging.getLogger(__name__)

#: Seconds after which files are uploaded at the next opportunity, although no checkpoint is new.
_PUBLISH_SECONDS = 30.0

#: Share of the time that looking for changes may take: a large study has many files.
_SCAN_SHARE = 0.02

#: Pauses before a failed upload is tried again, seconds; the clients have tried several times.
_PAUSES = (5.0, 20.0, 60.0)

#: Seconds for which a listing of the bucket counts as fresh.
_FRESH_SECONDS = 2.0


#: The working copies of this process, by URL.
_copies: dict[str, "WorkingCopy"] = {}


def open_copy(objects: Objects) -> CopyPath:
    """Returns the working copy of a folder in a bucket, equal to it.

    Raises:
        StoreError: the bucket cannot be read.
    """
    if objects.url not in _copies:
        _copies[objects.url] = WorkingCopy(objects)
    copy = _copies[objects.url]
    copy.refresh()
    return copy.root


def find_copy(path: Path) -> "WorkingCopy | None":
    """Returns the working copy that a path lies in; None for any other path."""
    return next((copy for copy in _copies.values() if path.is_relative_to(copy.root)), None)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock in the bucket of a folder in a working copy; nothing for any other folder.

    Raises:
        UserError, RunError: see `WorkingCopy.locked`.
    """
    copy = find_copy(folder)
    with contextlib.nullcontext() if copy is None else copy.locked(folder):
        yield


def check_writable(folder: Path) -> None:
    """Checks that the bucket of a working copy can be written; nothing for any other folder.

    Raises:
        UserError: it cannot.
    """
    if (copy := find_copy(folder)) is not None:
        with copies.reported(copy.objects.url, "workdir"):
            copy.check_writable()


def publish(folder: Path, *, now: bool = False) -> None:
    """Uploads what has changed in a working copy; nothing for any other folder.

    Raises:
        RunError: see `WorkingCopy.publish`.
    """
    if (copy := find_copy(folder)) is not None:
        copy.publish(now=now)


def barrier(folder: Path, where: str) -> None:
    """Waits for all processes; afterwards, all see what the first one has written to a folder."""
    copy = find_copy(folder)
    if copy is not None:
        copy.publish(now=True)
    processes.barrier(where)
    if copy is not None and not processes.is_first():
        with copies.reported(copy.objects.url, "workdir"):
            copy.pull()


class _Entry(NamedTuple):
    """A file, or a folder that is packed, as it lies in a working copy."""

    path: Path
    signature: object  # changes when it is written
    written: int  # time, ns


class WorkingCopy(Copy):
    """A copy of a folder in a bucket that a command may write to."""

    def __init__(self, objects: Objects):
        place, self._owner = copies.temporary_place()
        super().__init__(objects, place)
        #: Signatures of what the bucket has, and of what it has once the upload has succeeded.
        self._signatures: dict[str, object] = {}
        self._sent: dict[str, object] = {}
        self._is_writable = False
        # Whether it has what the bucket lacks; on a full disk the file that says so may be missing.
        self._is_kept = False
        self._leases: list[lease.Lease] = []
        self._pulled = self._published = self._next_scan = float("-inf")
        self._uploads = concurrent.futures.ThreadPoolExecutor(1, "jaxad-upload")
        atexit.register(self._close)
        self._temporary = contextlib.ExitStack()
        self._temporary.enter_context(interrupts.removed_at_the_end(self.place))
        self._upload: concurrent.futures.Future[None] | None = None

    def refresh(self) -> None:
        """Makes the copy equal to the bucket, unless this process writes to it."""
        if self._leases or time.monotonic() - self._pulled < _FRESH_SECONDS:
            return
        self.pull()

    def pull(self) -> set[str]:
        """Makes the copy equal to the bucket; returns the names of all objects that changed."""
        changed = super().pull()
        entries = self._scan() if changed else {}
        for name in changed:
            self._signatures.pop(name, None)
            if name in entries:
                self._signatures[name] = entries[name].signature
        self._pulled = time.monotonic()
        return changed

    def _close(self) -> None:
        """Deletes the copy at the end of the process, unless it has what the bucket lacks."""
        if not self._is_kept:
            shutil.rmtree(self.place, ignore_errors=True)

    def check_writable(self) -> None:
        """Writes and deletes an object, once.

        Raises:
            StoreError: that is not allowed, or fails.
        """
        if not self._is_writable:
            name = f"{lease.FOLDER}/probe-{uuid.uuid4().hex}"
            self.objects.write(name, b"")
            self.objects.delete([name])
            self._is_writable = True

    @contextlib.contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """Holds the lock of a folder in the copy inside the block, and uploads what it wrote.

        Raises:
            UserError: another process holds the lock, or the bucket does not allow it.
            RunError: what the block wrote cannot be uploaded.
        """
        objects = self.objects.below(folder.relative_to(self.root).as_posix())
        with contextlib.ExitStack() as stack:
            with copies.reported(objects.url, "workdir"):
                held = stack.enter_context(lease.held(objects))
                # Inside of a locked folder another command may have locked this one before.
                self.publish(now=True)
                self.pull()
            self._leases.append(held)
            try:
                yield
            except BaseException as error:  # what an interruption left is uploaded too
                try:
                    self._finish(held)
                except RunError as later:  # that of the block is the one that ends the command
                    if str(later) != str(error):
                        logger.warning(f"warning: {later}")
                raise
            self._finish(held)

    def _finish(self, held: lease.Lease) -> None:
        try:
            with interrupts.deferred(sets_handlers=False):
                self.publish(now=True)
        finally:
            self._leases.remove(held)
            if held.is_lost:  # another process has written since; a later command copies anew
                self._drop(held.objects.url.removeprefix(self.objects.url).strip("/"))

    def _drop(self, folder: str) -> None:
        """Deletes a folder from the copy and not from the bucket; "" for all."""
        shutil.rmtree(self.root / folder, ignore_errors=True)
        for known in (self.versions, self._signatures):
            for name in [name for name in known if not folder or name.startswith(f"{folder}/")]:
                del known[name]

    def publish(self, *, now: bool = False) -> None:
        """Uploads what has changed, in a thread of its own; call it where the files are consistent.

        With `now` it returns when everything is in the bucket. Otherwise it does nothing while an
        upload is in progress, or shortly after one if no checkpoint is new.

        Raises:
            RunError: this upload or the one before failed, or another process has taken over.
        """
        if not self._leases:
            return
        if self._upload is not None and not (now or self._upload.done()):
            return
        self._end_upload()
        begun = time.monotonic()
        if not now and begun < self._next_scan:
            return
        self._check_exists()
        entries = self._scan()
        ended = time.monotonic()
        self._next_scan = ended + (ended - begun) / _SCAN_SHARE
        new = {n: e for n, e in entries.items() if self._signatures.get(n) != e.signature}
        is_due = time.monotonic() - self._published > _PUBLISH_SECONDS
        if not (now or is_due or any(map(copies.is_packed, new))):
            return
        gone = [name for name in self._signatures if name not in entries]
        if new or gone:
            with self._reported():
                staged = self._stage(new)
            self._sent = {n: s for n, s in self._signatures.items() if n in entries}
            self._sent |= {name: new[name].signature for name in staged}
            self._upload = self._uploads.submit(self._send, staged, gone)
        self._published = time.monotonic()
        if now:
            self._end_upload()

    def _end_upload(self) -> None:
        """Waits for the upload in progress, if there is one; raises a RunError if it failed.

        What failed is uploaded again the next time.
        """
        upload, self._upload = self._upload, None
        if upload is None:
            return
        with self._reported():
            upload.result()
        self._is_kept = False
        (self.place / copies.KEPT).unlink(missing_ok=True)
        self._signatures = self._sent

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Keeps the copy and raises a RunError if the store or the local disk fails."""
        try:
            yield
        except (StoreError, OSError) as error:
            self._is_kept = True
            with contextlib.suppress(OSError):  # the disk may be full
                (self.place / copies.KEPT).touch()
            self._temporary.close()
            raise RunError(
                f"'{self.objects.url}' cannot be written ({error}); what it holds is intact, and "
                f"the files that it lacks are in '{self.root.parent!s}'. Once the cause is "
                "removed, run the same command to resume."
            ) from error

    def _check_exists(self) -> None:
        """Raises a RunError if the copy was deleted, which must not delete it in the bucket."""
        # What deletes old files deletes the file of the owner, too, which is the oldest.
        if not (self.place / "owner").exists() or (self._signatures and not self.root.exists()):
            raise RunError(
                f"the copy of '{self.objects.url}' in '{self.place}' was deleted while the command "
                "was working on it; nothing more is uploaded. Run the same command to resume from "
                "what is in the bucket, with XDG_CACHE_HOME in a folder that is not cleaned."
            )

    def _scan(self) -> dict[str, _Entry]:
        """Returns all files and packed folders by the names of their objects."""
        entries: dict[str, _Entry] = {}
        for text, folders, files in os.walk(self.root):
            folder = Path(text)
            prefix = folder.relative_to(self.root).as_posix()
            prefix = "" if prefix == "." else f"{prefix}/"
            folders[:] = [name for name in folders if not _is_temporary(name)]
            if prefix and folder.name == "checkpoints":
                paths = {f"{prefix}{name}{copies.PACKED}": folder / name for name in folders}
                folders[:] = []
            else:
                paths = {}
            for name in files:
                if not _is_temporary(name):  # the names of objects are UTF-8
                    paths[readable(f"{prefix}{name}")] = folder / name
            for name, path in paths.items():
                # Trackers delete files at any moment, and make links to them.
                with contextlib.suppress(FileNotFoundError):
                    entries[name] = _folder_entry(path) if path.is_dir() else _file_entry(path)
        return entries

    def _stage(self, entries: Mapping[str, _Entry]) -> dict[str, Path]:
        """Copies files and links checkpoints, so that what is uploaded stays as it is now."""
        folder = self.place / "staged"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        staged = {}
        for number, (name, entry) in enumerate(sorted(entries.items(), key=_order)):
            target = folder / str(number)
            with contextlib.suppress(FileNotFoundError):
                if entry.path.is_dir():
                    shutil.copytree(entry.path, target, copy_function=copies.link)
                else:  # logs and tables grow, and are cut, in place
                    shutil.copyfile(entry.path, target)
                staged[name] = target
        return staged

    def _send(self, staged: Mapping[str, Path], gone: Sequence[str]) -> None:
        """Uploads files in their order and deletes objects, with patience."""
        for pause in (*_PAUSES, None):
            try:
                self._send_once(staged, gone)
                return
            except StoreError as error:
                if pause is None or isinstance(error, Refused) or interrupts.requested():
                    raise
                logger.warning(
                    f"warning: '{self.objects.url}' cannot be written ({error}); trying again in "
                    f"{pause:g} s."
                )
                end = time.monotonic() + pause
                while time.monotonic() < end and not interrupts.requested():
                    time.sleep(min(0.5, pause))

    def _send_once(self, staged: Mapping[str, Path], gone: Sequence[str]) -> None:
        checkpoints = {n: copies.pack(path) for n, path in staged.items() if copies.is_packed(n)}
        files = {name: path for name, path in staged.items() if name not in checkpoints}
        self._check_leases()
        # A file that vanished, such as an outdated result, goes first, and a checkpoint last.
        self.objects.delete([name for name in gone if not copies.is_packed(name)])
        copies.put_in_order(self.objects, files)
        self._check_leases()
        self.objects.put(checkpoints)
        self._check_leases()
        self.objects.delete([name for name in gone if copies.is_packed(name)])
        found = self.objects.find()
        for name in gone:
            self.versions.pop(name, None)
        self.versions |= {name: found[name].version for name in staged if name in found}
        shutil.rmtree(self.place / "staged", ignore_errors=True)

    def _check_leases(self) -> None:
        for held in self._leases:
            held.check()


def _order(item: tuple[str, _Entry]) -> tuple[int, bool]:
    """Sorts entries by time; of two of the same tick of the clock a JSON file is the later one."""
    name, entry = item
    return entry.written, name.endswith(".json")


def _file_entry(path: Path) -> _Entry:
    status = path.stat()
    return _Entry(path, (status.st_ino, status.st_size, status.st_mtime_ns), status.st_mtime_ns)


def _folder_entry(folder: Path) -> _Entry:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [(path.relative_to(folder).as_posix(), _file_entry(path)) for path in files]
    signature = tuple((name, entry.signature) for name, entry in entries)
    return _Entry(folder, signature, max((entry.written for _, entry in entries), default=0))


def _is_temporary(name: str) -> bool:
    """Tells whether a file or folder is not part of a run: hidden, or a save in progress."""
    return name.startswith(".") or "orbax-checkpoint-tmp" in name
