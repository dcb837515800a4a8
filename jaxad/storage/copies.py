"""Copies on this machine of what lies in a bucket: how they are made equal to it.

All code of jaxad and of its libraries reads and writes ordinary files. `Copy` is the part that
`working_copies` (folders that a command writes) and `data_copies` (data that it reads) share.
"""

import contextlib
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxad.errors import UserError
from jaxad.runtime import locks
from jaxad.storage import lease
from jaxad.storage.buckets import Object, Objects, StoreError
from jaxad.storage.home import cache_folder, temporary_folder
from jaxad.storage.paths import add_copy

logger = logging.getLogger(__name__)

#: Objects with this ending hold a folder, which is so complete or absent: a checkpoint.
PACKED = ".tar"

#: The file in the folder of a copy that keeps other processes from deleting it.
KEPT = "kept"

#: Size from which a download is announced.
_ANNOUNCED_BYTES = 64 * 2**20

#: How often a copy is begun again because objects are deleted meanwhile.
_TRIES = 5


def base_folder() -> Path:
    """Returns the folder of all copies, which is created; below the cache folder.

    Raises:
        UserError: neither a cache folder nor a temporary folder can be written.
    """
    folder = cache_folder() or temporary_folder()
    if folder is None:
        raise UserError(
            "there is no folder for copies of a bucket: set XDG_CACHE_HOME to a folder that can "
            "be written."
        )
    # Resolved: the URL of a path must be found however the path is written.
    folder = (folder / "jaxad" / "buckets").resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)  # a bucket with images of patients may be private
    return folder


class Copy:
    """A folder or file that is made equal to the objects at a URL.

    Attributes:
        objects: the objects.
        root: the folder or file; messages show its URL.
        versions: version of every object that the copy has, by name.
    """

    def __init__(
        self,
        objects: Objects,
        place: Path,
        versions: Mapping[str, str] | None = None,
        *,
        num_parts: int = 1,
    ):
        """Prepares the copy in a folder, `place`, which holds nothing else.

        The path of the copy ends with the last `num_parts` parts of the URL.
        """
        self.objects = objects
        self.place = place
        parts = objects.url.split("/")[-num_parts:]
        self.root = add_copy(place.joinpath("copy", *parts), objects.url)
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.versions = dict(versions or {})

    def pull(self) -> set[str]:
        """Makes the copy equal to the bucket; returns the names of all objects that changed.

        Files that were never in the bucket stay.

        Raises:
            StoreError: the bucket cannot be read.
        """
        changed: set[str] = set()
        for _ in range(_TRIES):
            found = {name: item for name, item in self.objects.find().items() if _is_copied(name)}
            old = {
                name
                for name, item in found.items()
                if self.versions.get(name) != item.version or not self.path(name).exists()
            }
            gone = self.versions.keys() - found.keys()
            for name in gone:
                _remove(self.path(name))
                del self.versions[name]
            size = sum(found[name].size for name in old)
            if size > _ANNOUNCED_BYTES:
                logger.info(f"copying {size / 2**20:,.0f} MiB from '{self.objects.url}'.")
            missing = self._download({name: found[name] for name in sorted(old)})
            changed |= gone | (old - missing)
            if not missing:
                return changed
        raise StoreError("objects are deleted while they are read")

    def _download(self, wanted: Mapping[str, Object]) -> set[str]:
        """Downloads objects and puts them in their places; returns those that are gone."""
        if not wanted:
            return set()
        size = sum(item.size for item in wanted.values())
        with tempfile.TemporaryDirectory(dir=self.place, prefix="pull-") as text:
            folder = Path(text)
            targets = {name: folder / str(number) for number, name in enumerate(wanted)}
            missing = set(self.objects.get(targets, size))
            for name in wanted.keys() - missing:
                path = self.path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if is_packed(name):
                    unpacked = Path(f"{targets[name]}.unpacked")
                    unpacked.mkdir()
                    # What is missing of a damaged checkpoint is noticed when it is restored.
                    with (
                        contextlib.suppress(tarfile.TarError),
                        tarfile.open(targets[name], "r:") as archive,
                    ):
                        archive.extractall(unpacked, filter="data")
                    _remove(path)
                    unpacked.replace(path)
                else:
                    # As on a disk, a file keeps its time on every machine that reads it.
                    if (written := wanted[name].written) > 0:
                        os.utime(targets[name], (written, written))
                    targets[name].replace(path)
                self.versions[name] = wanted[name].version
        return missing

    def path(self, name: str) -> Path:
        """Returns the file, or the folder that is packed, of an object."""
        if not name:
            return self.root
        return self.root / (name.removesuffix(PACKED) if is_packed(name) else name)


def is_packed(name: str) -> bool:
    """Tells whether an object holds a folder: those in a folder `checkpoints` do."""
    return name.endswith(PACKED) and name.split("/")[-2:-1] == ["checkpoints"]


def _is_copied(name: str) -> bool:
    """Tells whether an object is copied: locks are not, nor names that lead out of the folder."""
    parts = name.split("/")
    return lease.FOLDER not in parts and ".." not in parts and not name.startswith("/")


def _remove(path: Path) -> None:
    """Removes a file or a folder, which may be gone."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pack(folder: Path) -> Path:
    """Packs a folder into one file beside it."""
    path = folder.with_name(f"{folder.name}{PACKED}")
    if not path.exists():
        temporary = path.with_suffix(".part")
        with tarfile.open(temporary, "w") as archive:
            archive.add(folder, arcname=".")
        temporary.replace(path)
    return path


@contextlib.contextmanager
def reported(url: str, what: str) -> Iterator[None]:
    """Raises a StoreError as a UserError that names a URL; `what` is the flag or field."""
    try:
        yield
    except StoreError as error:
        prefix = f"{what}: " if what else ""
        raise UserError(
            f"{prefix}'{url}': {error}; remove the cause, or choose another."
        ) from error


def put_in_order(objects: Objects, paths: Mapping[str, Path]) -> None:
    """Uploads files in the order in which they were written.

    Files between two JSON files may be uploaded in any order: a JSON file often says that the files
    before it are complete.
    """
    group: dict[str, Path] = {}
    for name, path in paths.items():
        if name.endswith(".json"):
            objects.put(group)
            objects.put({name: path})
            group = {}
        else:
            group[name] = path
    objects.put(group)


def temporary_place() -> tuple[Path, object]:
    """Returns a new folder for a copy, and an open file that marks this process as its owner.

    Folders of processes that have ended are deleted, except those that hold a file `KEPT`.
    """
    base = base_folder()
    for owner in base.glob("run-*/owner"):
        with contextlib.suppress(OSError), owner.open("r+") as file:
            if locks.try_lock(file) and not (owner.parent / KEPT).exists():
                shutil.rmtree(owner.parent, ignore_errors=True)
    place = Path(tempfile.mkdtemp(dir=base, prefix="run-"))
    file = (place / "new").open("w")  # noqa: SIM115 - closed, and so unlocked, when the process ends
    locks.try_lock(file)
    (place / "new").replace(place / "owner")  # locked before other processes see it
    return place, file


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Makes `target` a hard link to `source`, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)
