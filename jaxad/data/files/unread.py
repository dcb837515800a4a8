"""Files in a data folder that are not read: counted and reported, so that none is lost silently."""

import collections
import dataclasses
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from jaxad.data.files.formats import FORMATS, Kind, is_other_format
from jaxad.data.files.names import is_named_as_mask
from jaxad.data.files.tree import files_in, find_files
from jaxad.data.readers import dicom
from jaxad.errors import DataError, UserError

logger = logging.getLogger(__name__)

#: Number of suffixes that a message lists; names with dots in them may have any number.
_NUM_LISTED = 12

#: Suffixes of two parts.
_DOUBLE = tuple(
    suffix
    for suffix in (*FORMATS["nifti"].suffixes, *FORMATS["nifti"].others)
    if suffix.count(".") > 1
)


@dataclasses.dataclass(frozen=True)
class Unread:
    """The files of a folder that are not read."""

    folder: Path  # the folder that holds them
    #: the number of files by suffix: suffixes in `others` first, then by frequency
    counts: Mapping[str, int]
    #: the path of one of them below the folder, in one of the formats of `others` if there is such
    #: a file
    first: str
    others: tuple[str, ...]  # suffixes of formats that hold such data but are not read
    target: str  # the format to convert those to

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def listed(self) -> str:
        """Counts by suffix: `8 .webp, 4 .dcm`."""
        parts = [f"{count:,} {suffix}" for suffix, count in self.counts.items()]
        if len(parts) > _NUM_LISTED:
            rest = sum([*self.counts.values()][_NUM_LISTED:])
            parts = [*parts[:_NUM_LISTED], f"{rest:,} others"]
        return ", ".join(parts)

    @property
    def remedy(self) -> str:
        """What to do about files in other formats; "" if there are none."""
        return f"convert {', '.join(self.others)} to {self.target}" if self.others else ""

    def __str__(self) -> str:
        total = sum(self.counts.values())
        are = "file is" if total == 1 else "files are"
        return f"{self.folder}: {total:,} {are} not read: {self.listed}; the first: '{self.first}'"


def find_unread(
    folder: Path,
    kind: Kind | Literal["npz"],
    used: Collection[Path] = (),
    passed_over: Collection[Path] = (),
) -> Unread:
    """Finds the files below a folder (for `npz`, directly in it) that are not read.

    Hidden files do not count, nor DICOM files in a folder that is `used`. Folders in `passed_over`,
    directly below, are left out, as they are reported as a whole.
    """
    used_paths, ignored = set(used), set(passed_over)
    unread = [
        path
        for path in (files_in(folder, "") if kind == "npz" else find_files(folder, ("",)))
        if path not in used_paths
        and not (path.parent in used_paths and dicom.may_be_dicom(path))
        and path.name.upper() not in dicom.NOT_SLICES
        and folder / path.relative_to(folder).parts[0] not in ignored
    ]
    others = [path for path in unread if is_other_format(path, kind)]
    counts_of_others = collections.Counter(map(_suffix, others))
    counts_of_rest = collections.Counter(map(_suffix, unread)) - counts_of_others
    first = next(iter(others or unread), None)
    return Unread(
        folder=folder,
        counts=dict([*counts_of_others.most_common(), *counts_of_rest.most_common()]),
        first="" if first is None else first.relative_to(folder).as_posix(),
        others=tuple(suffix for suffix, _ in counts_of_others.most_common()),
        target=FORMATS[kind].target,
    )


def tell_unread(unread: Unread, *, is_strict: bool) -> None:
    """Logs which files are not read; if `is_strict`, data in other formats are a DataError."""
    if unread.others and is_strict:
        raise DataError(
            f"{unread}; {unread.remedy} and remove the originals, or leave them out with "
            "--config.data.on_error=skip."
        )
    if unread:
        logger.warning(f"note: {unread}.")


def check_no_data_in(folder: Path) -> None:
    """Raises a UserError if a folder to write to holds images, scans or arrays itself.

    A folder that jaxad wrote is ignored in data, and its images would be ignored with it.
    """
    suffixes = tuple(s for formats in FORMATS.values() for s in formats.suffixes if s)
    if folder.is_dir() and (data := files_in(folder, suffixes)):
        raise UserError(
            f"workdir '{folder}': holds data, such as '{data[0].name}'; choose another --workdir, "
            "which need not exist."
        )


def none_of(folder: Path, kind: Kind) -> str:
    """Returns the predicate of a message on a folder without files to read, and what it holds."""
    return f"holds no {FORMATS[kind].name}{describe_content(folder, kind)}"


def describe_content(folder: Path, kind: Kind) -> str:
    """Returns ", but" and what a folder without files to read holds; "" if it holds no files."""
    # Masks are read, but only with their scans.
    scans = find_files(folder, FORMATS["nifti"].suffixes) if kind == "nifti" else []
    masks = [path for path in scans if is_named_as_mask(path)]
    unread = find_unread(folder, kind, masks)
    parts = []
    if masks:
        first = masks[0].relative_to(folder).as_posix()
        are = "is named like a mask" if len(masks) == 1 else "are named like masks"
        parts.append(f"{len(masks):,} that {are}: '{first}'{', ...' if len(masks) > 1 else ''}")
    if unread:
        parts.append(f"{unread.listed}{f' ({unread.remedy})' if unread.remedy else ''}")
    return f", but {' and '.join(parts)}" if parts else ""


def _suffix(path: Path) -> str:
    """Returns the suffix in lower case; a number after a dot, as in UIDs, is none."""
    name = path.name.lower()
    double = next((suffix for suffix in _DOUBLE if name.endswith(suffix)), "")
    suffix = double or path.suffix.lower()
    return "without suffix" if suffix[1:].isdigit() or not suffix else suffix
