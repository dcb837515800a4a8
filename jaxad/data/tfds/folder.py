"""Where TensorFlow Datasets keeps data, and who makes them there."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import UserError
from jaxad.runtime import locks
from jaxad.storage.home import home_folder, temporary_folder
from jaxad.storage.paths import check_name, expand, take_folders_literally

logger = logging.getLogger(__name__)

#: File systems of one machine, on which no other machine can be at work.
_LOCAL = ("apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")

#: Half-made data that nobody has touched for so long are nobody's.
_STALE_SECONDS = 86_400


def data_folder(root: str, flag: str = "config.data.root") -> str:
    """The folder in which TFDS keeps data.

    Args:
        root: as the config names it; "": `$TFDS_DATA_DIR`, by default `tensorflow_datasets` in the
            home folder. A user without one gets a folder for temporary files, which a line on
            stderr says.
        flag: where `root` is from, for messages.

    Raises:
        UserError: it names the home folder of nobody, or TFDS cannot take its name.
    """
    take_folders_literally()
    named, source = root, flag
    if not root:
        named, source = os.environ.get("TFDS_DATA_DIR", ""), "$TFDS_DATA_DIR"
    if "://" in named:
        return named
    home = home_folder()
    if named:
        folder = expand(named, source)
    elif home is not None:
        folder = home / "tensorflow_datasets"
    else:
        folder = _temporary()
    check_name(folder, f"{source}: data folder", for_checkpoints=False)
    return str(folder)


def _temporary() -> Path:
    """A folder of this user that the next run finds again."""
    base = temporary_folder()
    if base is None:
        raise UserError(
            "this user has no home folder for data; name a folder in --config.data.root or "
            "$TFDS_DATA_DIR."
        )
    folder = base / "tensorflow_datasets"
    logger.warning(
        f"note: this user has no home folder; data are kept in '{folder}'. $TFDS_DATA_DIR names "
        "another folder."
    )
    return folder


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Keeps other processes from making data in a folder; waits for one that does.

    What a killed process left there is removed: at once on a file system of this machine, where the
    lock says that nobody is at work. On others, whose locks may be those of one machine, only what
    has not changed for a day.
    """
    if "://" in folder:  # storage without locks
        yield
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    lock = path / ".lock"
    waiting = f"data: another process makes data in '{path}', waiting for it."
    with locks.wait_for_lock(lock, waiting):
        lock.touch()
        now = lock.stat().st_mtime  # by the clock that stamps the other files, too
        is_local = _is_local(path)
        for leftover in path.glob("incomplete.*"):
            if is_local or _last_change(leftover) < now - _STALE_SECONDS:
                shutil.rmtree(leftover)
        yield


def _last_change(folder: Path) -> float:
    """Seconds at which the newest file in a folder was written; infinite where that is unknown."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:  # somebody is at work there
        return float("inf")


def _is_local(path: Path) -> bool:
    """Whether a folder is certainly on a file system of this machine alone."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # other systems have no such file
        return False
    place, kinds = path.resolve(), {}
    for line in lines:
        fields, _, source = line.partition(b" - ")
        escaped = fields.split()[4]  # spaces and the like are octal
        point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), escaped))
        kinds[Path(point)] = source.split()[0].decode()  # a later one hides an earlier one
    kind = next((kinds[one] for one in (place, *place.parents) if one in kinds), "")
    return kind in _LOCAL
