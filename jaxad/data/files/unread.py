"""Files in a folder of data that are not read: counted, so that none is passed over in silence."""

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
from jaxad.errors import DataError

logger = logging.getLogger(__name__)

#: Suffixes that a message lists; names with dots in them seem to have any number.
_LISTED = 12

#: Suffixes of two parts.
_DOUBLE = tuple(
    suffix
    for suffix in (*FORMATS["nifti"].suffixes, *FORMATS["nifti"].others)
    if suffix.count(".") > 1
)


@dataclasses.dataclass(frozen=True)
class Unread:
    """The files of a folder that are not read.

    Attributes:
        folder: where they are.
        counts: by suffix, other formats first, and of these and the rest the most frequent ones.
        first: one of them, below the folder; of another format, where there is such a file.
        others: the suffixes, among those counted, of formats that hold data and are not read.
        target: what to convert those to.
    """

    folder: Path
    counts: Mapping[str, int]
    first: str
    others: tuple[str, ...]
    target: str

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def listed(self) -> str:
        """Counts by suffix: `8 .webp, 4 .dcm`."""
        parts = [f"{count:,} {suffix}" for suffix, count in self.counts.items()]
        if len(parts) > _LISTED:
            rest = sum([*self.counts.values()][_LISTED:])
            parts = [*parts[:_LISTED], f"{rest:,} others"]
        return ", ".join(parts)

    @property
    def remedy(self) -> str:
        """What to do about other formats; "" where there are none."""
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
    """The files below a folder that are not read, of arrays right in it; hidden ones do not count.

    Args:
        folder: where to look.
        kind: of the files that are read.
        used: files that are read, and folders all of whose DICOM files are.
        passed_over: folders right below whose files do not count: they are reported as a whole.

    Raises:
        UserError: the folder cannot be read.
    """
    read, passed = set(used), set(passed_over)
    unread = [
        path
        for path in (files_in(folder, "") if kind == "npz" else find_files(folder, ("",)))
        if path not in read
        and not (path.parent in read and dicom.may_be_dicom(path))
        and path.name.upper() not in dicom.OTHERS
        and folder / path.relative_to(folder).parts[0] not in passed
    ]
    others = [path for path in unread if is_other_format(path, kind)]
    of_others = collections.Counter(map(_suffix, others))
    of_rest = collections.Counter(map(_suffix, unread)) - of_others
    first = next(iter(others or unread), None)
    return Unread(
        folder=folder,
        counts=dict([*of_others.most_common(), *of_rest.most_common()]),
        first="" if first is None else first.relative_to(folder).as_posix(),
        others=tuple(suffix for suffix, _ in of_others.most_common()),
        target=FORMATS[kind].target,
    )


def tell_unread(unread: Unread, *, is_strict: bool) -> None:
    """Prints what is not read to stderr.

    Args:
        unread: what is not read.
        is_strict: whether data in other formats end the run.

    Raises:
        DataError: some of it holds data in another format, and that is strict.
    """
    if unread.others and is_strict:
        raise DataError(
            f"{unread}; {unread.remedy} and remove the originals, or leave them out with "
            "--config.data.on_error=skip."
        )
    if unread:
        logger.warning(f"note: {unread}.")


def none_of(folder: Path, kind: Kind) -> str:
    """What a message says of a folder without files to read: what it holds instead."""
    return f"holds no {FORMATS[kind].name}{instead(folder, kind)}"


def instead(folder: Path, kind: Kind) -> str:
    """What a message says of the files of a folder, none of which is read; "" without files."""
    # Masks of scans are files that are read, each with its scan.
    scans = find_files(folder, FORMATS["nifti"].suffixes) if kind == "nifti" else []
    masks = [path for path in scans if is_named_as_mask(path)]
    unread = find_unread(folder, kind, masks)
    parts = []
    if masks:
        first = masks[0].relative_to(folder).as_posix()
        named = "is named as a mask" if len(masks) == 1 else "are named as masks"
        parts.append(f"{len(masks):,} that {named}: '{first}'{', ...' if len(masks) > 1 else ''}")
    if unread:
        parts.append(f"{unread.listed}{f' ({unread.remedy})' if unread.remedy else ''}")
    return f", but {' and '.join(parts)}" if parts else ""


def _suffix(path: Path) -> str:
    """The suffix in lower case; none of a name that ends in a number, as UIDs do."""
    name = path.name.lower()
    double = next((suffix for suffix in _DOUBLE if name.endswith(suffix)), "")
    suffix = double or path.suffix.lower()
    return "without suffix" if suffix[1:].isdigit() or not suffix else suffix
