"""Files in a folder of data that are not read: counted, so that none is passed over in silence."""

import collections
import dataclasses
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from jaxad.data.readers import dicom
from jaxad.data.tree import find_files
from jaxad.errors import DataError

#: What files are; see `jaxad.data.items.Kind`.
Kind = Literal["image", "nifti", "dicom", "npz"]

_IMAGES = (
    ".gif", ".webp", ".jp2", ".j2k", ".jxl", ".heic", ".heif", ".avif", ".tga", ".psd", ".svs",
    ".ndpi", ".mrxs", ".scn", ".czi", ".lsm", ".exr", ".pfm",
)  # fmt: skip
_SCANS = (
    ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".nii.bz2", ".nii.xz",
    ".nii.zst", ".nii.zip",
)  # fmt: skip
_ARRAYS = (".npy", ".mat", ".h5", ".hdf5", ".pkl", ".pt", ".zarr")
_DICOM = tuple(suffix for suffix in dicom.SUFFIXES if suffix)

#: What Windows leaves in folders.
_SYSTEM = ("THUMBS.DB", "DESKTOP.INI")


@dataclasses.dataclass(frozen=True)
class _Formats:
    """The formats of one kind of data.

    Attributes:
        others: suffixes of files that hold such data in a format that is not read.
        target: what to convert them to.
    """

    others: tuple[str, ...]
    target: str


_FORMATS: Mapping[Kind, _Formats] = {
    "image": _Formats((*_IMAGES, *_SCANS, *_DICOM), "PNG"),
    "nifti": _Formats(_SCANS, "NIfTI (.nii.gz)"),
    "dicom": _Formats(_SCANS, "NIfTI (.nii.gz), which config.data.name=nifti reads,"),
    "npz": _Formats(_ARRAYS, ".npz (numpy.savez)"),
}


@dataclasses.dataclass(frozen=True)
class Unread:
    """The files of a folder that are not read.

    Attributes:
        folder: where they are.
        kind: of the files that are.
        counts: by suffix, other formats first, and of these and the rest the most frequent ones.
        first: one of them, below the folder; of another format, where there is such a file.
        has_other_formats: whether some hold data in a format that is not read.
    """

    folder: Path
    kind: Kind
    counts: Mapping[str, int]
    first: str
    has_other_formats: bool

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def listed(self) -> str:
        """Counts by suffix: `8 .webp, 4 .dcm`."""
        return ", ".join(f"{count:,} {suffix}" for suffix, count in self.counts.items())

    @property
    def remedy(self) -> str:
        """What to do about other formats; "" where there are none."""
        return f"convert to {_FORMATS[self.kind].target}" if self.has_other_formats else ""

    def __str__(self) -> str:
        total = sum(self.counts.values())
        are = "file is" if total == 1 else "files are"
        return f"{self.folder}: {total:,} {are} not read: {self.listed}; the first: '{self.first}'"


def find_unread(folder: Path, kind: Kind, used: Collection[Path] = ()) -> Unread:
    """The files below a folder that are not read, of arrays right in it; hidden ones do not count.

    Args:
        folder: where to look.
        kind: of the files that are read.
        used: files that are read, and folders all of whose DICOM files are.

    Raises:
        UserError: the folder cannot be read.
    """
    read = set(used)
    unread = [
        path
        for path in find_files(folder, ("",))
        if path not in read
        and (kind != "npz" or path.parent == folder)
        and not (path.parent in read and dicom.may_be_dicom(path))
        and path.name.upper() not in (*dicom.OTHERS, *_SYSTEM)
    ]
    others = [path for path in unread if is_other_format(path, kind)]
    counts = {
        **dict(collections.Counter(map(_suffix, others)).most_common()),
        **dict(collections.Counter(map(_suffix, unread)).most_common()),
    }
    first = next(iter(others or unread), None)
    return Unread(
        folder=folder,
        kind=kind,
        counts=counts,
        first="" if first is None else first.relative_to(folder).as_posix(),
        has_other_formats=bool(others),
    )


def tell_unread(unread: Unread, *, is_strict: bool) -> None:
    """Tells on stderr what is not read.

    Raises:
        DataError: some of it holds data in another format, and that is strict.
    """
    if unread.has_other_formats and is_strict:
        raise DataError(
            f"{unread}; {unread.remedy} what holds data, move it away, or leave it out with "
            "config.data.on_error=skip."
        )
    if unread:
        print(f"note: {unread}.", file=sys.stderr, flush=True)


def is_other_format(path: Path, kind: Kind) -> bool:
    """Whether a file is named as one that holds data in a format that is not read."""
    return path.name.lower().endswith(_FORMATS[kind].others)


def other_suffixes(kind: Kind) -> tuple[str, ...]:
    """Of formats that are not read."""
    return _FORMATS[kind].others


def conversion(kind: Kind) -> str:
    """What files of other formats are to be converted to."""
    return _FORMATS[kind].target


def no_files(folder: Path, kind: Kind) -> str:
    """What a message adds to "there are no files to read": those that are there instead."""
    unread = find_unread(folder, kind)
    if not unread:
        return ""
    return f", but {unread.listed}{f' ({unread.remedy})' if unread.remedy else ''}"


def _suffix(path: Path) -> str:
    name = path.name.lower()
    start = name.find(".nii.")
    return name[start:] if start > 0 else path.suffix.lower() or "without suffix"
