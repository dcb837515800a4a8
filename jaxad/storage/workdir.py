"""The folder of a run: its files, and writing them so that nothing half-written is read back."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from jaxad.errors import NO_ROOM, RunError, UserError
from jaxad.runtime import locks, processes
from jaxad.storage.paths import check_name, expand

#: Where `atomic_write` and `Workdir.replaced` leave what they write if they are killed.
_LEFTOVERS = (
    ".*.tmp", ".shared-*", "eval/*/.*.tmp", "figures/.*.tmp", "maps/**/.*.tmp", ".profile.*"
)  # fmt: skip


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", *, by_all: bool = False) -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it to `path` when the block succeeds.

    Of several processes the first alone writes, unless the file is each one's own (`by_all`); what
    the others would write is the same and goes nowhere.
    """
    if not by_all and not processes.is_first():
        with io.BytesIO() if "b" in mode else io.StringIO() as nowhere:
            yield nowhere
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    try:
        # Names of files need not be UTF-8; what is written is.
        as_text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
        options: dict[str, Any] = {} if "b" in mode else as_text
        with naming(path), os.fdopen(handle, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give them what the user's umask gives others.
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets an error of the system name the file: that a disk is full is told without one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: Path, value: Mapping[str, Any], *, by_all: bool = False) -> None:
    """Writes JSON as `atomic_write` writes. Keys keep their order."""
    with atomic_write(path, by_all=by_all) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


class Workdir:
    """Paths inside a run's folder."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = expand(path, "workdir")

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def study(self) -> Path:
        return self.path / "study.json"

    @property
    def splits(self) -> Path:
        return self.path / "splits.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def calibration(self) -> Path:
        return self.path / "calibration.json"

    @property
    def exported(self) -> Path:
        return self.path / "detector.jaxad"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    def evaluation(self, split: str) -> Path:
        return self.path / "eval" / split

    @contextlib.contextmanager
    def replaced(self, folder: Path) -> Iterator[Path]:
        """Yields a temporary folder that takes the place of `folder` when the block succeeds."""
        temporary = Path(tempfile.mkdtemp(dir=self.path, prefix=f".{folder.name}."))
        before = temporary.with_name(f"{temporary.name}.before")
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if folder.exists():  # away by one rename, not file by file
                folder.replace(before)
            temporary.replace(folder)
        finally:
            if before.exists() and not folder.exists():
                before.replace(folder)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(before, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder against other runs; what a killed one left half-written goes.

        Of several processes the first one holds it.

        Raises:
            UserError: another process works in it.
        """
        if not processes.is_first():
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                held = locks.try_lock(file)
            except OSError as error:
                raise UserError(
                    f"workdir '{self.path}': its file system has no locks ({error.strerror}); "
                    "choose another --workdir."
                ) from error
            if not held:
                raise UserError(
                    f"workdir '{self.path}': another process is at work there; wait for it or "
                    "choose another --workdir."
                )
            for pattern in _LEFTOVERS:
                for leftover in self.path.glob(pattern):
                    if leftover.is_dir():
                        shutil.rmtree(leftover)
                    else:
                        leftover.unlink()
            yield

    def check_writable(self, *, for_checkpoints: bool = False) -> None:
        """Makes the folder if it is not there.

        Args:
            for_checkpoints: whether checkpoints are to be written there.

        Raises:
            UserError: it cannot be written, or checkpoints cannot in a folder of this name.
            RunError: the disk is full.
        """
        if for_checkpoints:
            check_name(self.path, "workdir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            if error.errno in NO_ROOM:
                raise RunError(
                    f"workdir '{self.path}' takes no more ({error.strerror}); make room, or choose "
                    "another with --workdir."
                ) from error
            raise UserError(
                f"workdir '{self.path}' cannot be written ({error.strerror}); choose another "
                "with --workdir."
            ) from error
