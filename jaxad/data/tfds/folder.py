"""The data folder of TensorFlow Datasets, and a lock for processes that write to it."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import NO_ROOM, RunError, UserError
from jaxad.runtime import locks
from jaxad.storage import data_copies, io_errors
from jaxad.storage.buckets import StoreError, is_url
from jaxad.storage.home import (
    home_folder,
    is_writable,
    named_cache_folder,
    temporary_folder,
)
from jaxad.storage.locations import locate_data
from jaxad.storage.paths import check_name, expand, show, take_folders_literally

logger = logging.getLogger(__name__)

#: File systems that no other machine can write to.
_LOCAL = ("apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")

#: Incomplete data that have not changed for this long are left over from a killed process.
_STALE_SECONDS = 86_400


def data_folder(root: str, part: str) -> str:
    """Returns the folder that TFDS keeps data in.

    It is `root`, by default `$TFDS_DATA_DIR` or `tensorflow_datasets` in the home folder. If that
    cannot be created there, it is below `$XDG_CACHE_HOME`, or else temporary, with a note. For an
    URL it is a copy on this machine that has only one part of it; `upload` puts new data there.

    Args:
        root: a folder, an URL, or "".
        part: the folder of a data set in it, such as `mnist` or `icbm_synth/<config>`.

    Raises:
        UserError: the path names the home folder of an unknown user, TFDS cannot use it, or a
            bucket cannot be read.
    """
    take_folders_literally()
    named, source = root, "config.data.root"
    if not root:
        named, source = os.environ.get("TFDS_DATA_DIR", ""), "$TFDS_DATA_DIR"
    if is_url(named):
        return str(_copy_part(named, part, source))
    home = home_folder()
    if named:
        folder = expand(named, source)
    else:
        default = None if home is None else home / "tensorflow_datasets"
        is_usable = default is not None and (default.is_dir() or is_writable(default))
        folder = default if default is not None and is_usable else _without_home()
    check_name(folder, f"{source}: data folder", for_checkpoints=False)
    return str(folder)


def _copy_part(url: str, part: str, source: str) -> Path:
    """Copies one part of the data at an URL; returns the folder that holds all parts."""
    num_parts = len(part.split("/"))
    folder = locate_data(f"{url}/{part}", source, num_parts=num_parts)
    for record in list(folder.rglob("*-of-*")):
        if record.exists() and not (record.parent / "dataset_info.json").exists():
            shutil.rmtree(record.parent)  # it was not uploaded to the end
    return folder.parents[num_parts - 1]


def upload(folder: str, part: str) -> None:
    """Uploads new data if `data_folder` returned the copy of a bucket.

    Raises:
        RunError: the bucket cannot be written.
    """
    try:
        data_copies.push(Path(folder) / part)
    except StoreError as error:
        raise RunError(
            f"data folder '{show(folder)}' cannot be written ({error}); remove the cause, or name "
            "another in --config.data.root or $TFDS_DATA_DIR."
        ) from error


def _without_home() -> Path:
    """Returns a folder of this user that the next run finds again."""
    named = named_cache_folder()
    if named is not None:
        return named / "tensorflow_datasets"
    base = temporary_folder()
    if base is None:
        raise UserError(
            "this user has no home folder for data; name a folder in --config.data.root or "
            "$TFDS_DATA_DIR."
        )
    folder = base / "tensorflow_datasets"
    logger.warning(
        f"note: this user has no home folder that can be written; data are kept in '{folder}'. Set "
        "TFDS_DATA_DIR or XDG_CACHE_HOME to use another folder."
    )
    return folder


def raise_if_full(folder: str, error: Exception, remedy: str) -> None:
    """Raises a RunError if an error of TFDS means that there is no room in the data folder.

    `remedy` names the flag or variable for another folder.
    """
    number = io_errors.find_error_number(error)
    if number in NO_ROOM:
        raise RunError(
            f"data folder '{folder}' cannot take more files ({os.strerror(number)}); free disk "
            f"space, or choose another with {remedy}."
        ) from error


@contextlib.contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """Waits until no other process writes data to a folder, and keeps others from doing so.

    Data that a killed process left incomplete are removed: at once on a local file system, where
    the lock shows that no process is writing; on other file systems, where a lock may not be seen
    by other machines, after a day without a change.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    lock = path / ".lock"
    waiting = f"data: waiting for another process that writes data to '{path}'."
    with locks.wait_for_lock(lock, waiting):
        lock.touch()
        now = lock.stat().st_mtime  # by the file system's clock, which may not be ours
        is_local = _is_local(path)
        for leftover in path.glob("incomplete.*"):
            if is_local or _last_change(leftover) < now - _STALE_SECONDS:
                shutil.rmtree(leftover)
        yield


def _last_change(folder: Path) -> float:
    """Returns the time of the latest change in a folder, seconds; infinity if files vanish."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:  # another process is writing
        return float("inf")


def _is_local(path: Path) -> bool:
    """Whether a folder is on a file system that is known to belong to this machine alone."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return False
    resolved, kinds = path.resolve(), {}
    for line in lines:
        fields, _, source = line.partition(b" - ")
        escaped = fields.split()[4]  # the mount point, its spaces written in octal
        point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), escaped))
        kinds[Path(point)] = source.split()[0].decode()  # a later mount hides an earlier one
    folders = (resolved, *resolved.parents)
    return next((kinds[folder] for folder in folders if folder in kinds), "") in _LOCAL
