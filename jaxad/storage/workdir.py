"""The folder of a run: paths of its files, atomic writes, and the lock."""

import contextlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from jaxad.errors import NO_ROOM, RunError, UserError
from jaxad.runtime import locks, processes
from jaxad.storage import working_copies
from jaxad.storage.locations import locate
from jaxad.storage.paths import check_name

#: Temporary files that `atomic_write` and `Workdir.replaced` leave behind if they are killed.
_LEFTOVERS = (
    ".*.tmp", ".shared-*", "eval/*/.*.tmp", "figures/.*.tmp", "maps/**/.*.tmp", ".profile.*"
)  # fmt: skip


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", *, by_all: bool = False) -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it to `path` when the block succeeds.

    The mode is `w` for UTF-8 text or `wb` for bytes. Only the first of several processes writes,
    and what the others write is discarded, unless `by_all`: each then has a file of its own.
    """
    if not by_all and not processes.is_first():
        with io.BytesIO() if "b" in mode else io.StringIO() as nowhere:
            yield nowhere
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    # File names need not be UTF-8, but the files are.
    as_text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    options: dict[str, Any] = {} if "b" in mode else as_text
    try:
        with temporary.open(mode.replace("w", "x"), **options) as file, naming(path):
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # also an interruption
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the name of the file to errors of the system that lack it, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Removes folders on a path that the block creates and leaves empty, if it fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:  # also an interruption
        for path in missing:
            with contextlib.suppress(OSError):  # it holds files, or never was created
                path.rmdir()
        raise


def write_json(path: Path, value: Mapping[str, Any], *, by_all: bool = False) -> None:
    """Writes a JSON file; see `atomic_write`. Keys keep their order."""
    with atomic_write(path, by_all=by_all) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


class Workdir:
    """The folder of a run, and the paths in it; for a URL those of its working copy."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = locate(path, "workdir")
        self.config = self.path / "config.json"
        self.study = self.path / "study.json"
        self.splits = self.path / "splits.json"
        self.sources = self.path / "sources.json"
        self.history = self.path / "history.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.report = self.path / "report.html"
        self.calibration = self.path / "calibration.json"
        self.exported = self.path / "detector.jaxad"
        self.figures = self.path / "figures"
        self.profile = self.path / "profile"

    def evaluation(self, split: str) -> Path:
        return self.path / "eval" / split

    @contextlib.contextmanager
    def replaced(self, folder: Path) -> Iterator[Path]:
        """Yields a temporary folder that replaces `folder` when the block succeeds."""
        temporary = self.path / f".{folder.name}.{uuid.uuid4().hex[:8]}"
        before = temporary.with_name(f"{temporary.name}.before")
        try:
            temporary.mkdir()
            yield temporary
            if folder.exists():  # moved away with one rename, not deleted file by file
                folder.replace(before)
            temporary.replace(folder)
        finally:
            if before.exists() and not folder.exists():
                before.replace(folder)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(before, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder inside the block and deletes what a killed process left half-written.

        Only the first of several processes holds the lock. In a bucket, what the block writes is
        uploaded when it ends, and before that where `publish` is called.

        Raises:
            UserError: another process holds it, or the file system has no locks.
            RunError: a bucket cannot be written.
        """
        if not processes.is_first():
            yield
            return
        with working_copies.locked(self.path), (self.path / ".lock").open("w") as file:
            try:
                held = locks.try_lock(file)
            except OSError as error:
                raise UserError(
                    f"workdir '{self.path}': its file system has no locks ({error.strerror}); "
                    "choose another --workdir."
                ) from error
            if not held:
                raise UserError(
                    f"workdir '{self.path}': another process is using it; wait for it or "
                    "choose another --workdir."
                )
            for pattern in _LEFTOVERS:
                for leftover in self.path.glob(pattern):
                    if leftover.is_dir():
                        shutil.rmtree(leftover)
                    else:
                        leftover.unlink()
            yield

    def publish(self, *, now: bool = False) -> None:
        """Uploads what is new if the folder is in a bucket; call it where its files are consistent.

        With `now` it returns when everything is in the bucket.

        Raises:
            RunError: the bucket cannot be written.
        """
        working_copies.publish(self.path, now=now)

    def barrier(self, where: str) -> None:
        """Waits for all processes; afterwards, all see what the first one has written here.

        Raises:
            RunError: the folder is in a bucket, which cannot be written.
        """
        working_copies.barrier(self.path, where)

    def check_shared(self) -> None:
        """Raises a UserError unless every process sees the folder that the first one writes to."""
        copy = working_copies.find_copy(self.path)
        if copy is None:
            processes.check_shared(self.path)
        else:
            processes.check_same_text("workdir", copy.objects.url)

    def check_is_no_file(self) -> None:
        """Raises a UserError if the folder, or one above it, is a file."""
        for path in (self.path, *self.path.parents):
            if path.is_file():
                place = "" if path == self.path else f": '{path}'"
                raise UserError(
                    f"workdir '{self.path}'{place} is a file; name a folder, which need not exist."
                )

    def check_writable(self, *, for_checkpoints: bool = False) -> None:
        """Creates the folder if needed and checks that it can be written.

        Raises:
            UserError: it is a file, it cannot be written, or, with `for_checkpoints`, it has a name
                under which no checkpoints can be written.
            RunError: the disk is full.
        """
        if for_checkpoints:
            check_name(self.path, "workdir")
        self.check_is_no_file()
        working_copies.check_writable(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            if error.errno in NO_ROOM:
                raise RunError(
                    f"workdir '{self.path}' cannot take more files ({error.strerror}); free disk "
                    "space, or choose another --workdir."
                ) from error
            raise UserError(
                f"workdir '{self.path}' cannot be written ({error.strerror}); choose another "
                "with --workdir."
            ) from error
