"""A summary of a data set before training: what it holds, which files are bad, and what leaks."""

import csv
import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxad.data.files.masks import are_marked
from jaxad.data.files.reading import describe_blank, describe_noise
from jaxad.data.files.splitting import SEVERAL_UNDER_ONE_NAME
from jaxad.data.files.unread import tell_unread
from jaxad.data.leaks import TRAINING_SPLITS, image_digests, named_patients, spelt_alike
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.runtime.progress import counted
from jaxad.storage.workdir import atomic_write
from jaxad.types import FilesRead, Split

#: Examples in one line of text.
_MAX_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Leak:
    """Images or patients that two splits have in common."""

    kind: str  # `image` or `patient`
    splits: tuple[str, str]  # names of the two splits
    count: int  # number of shared patients, or of images of the second split that are in the first
    #: all of them: names of patients, or `<id> = <id>`, one text for all copies of an image
    examples: tuple[str, ...]

    def __str__(self) -> str:
        what = counted(self.count, self.kind)
        more = ", ..." if len(self.examples) > _MAX_EXAMPLES else ""
        first, second = self.splits
        listed = ", ".join(self.examples[:_MAX_EXAMPLES])
        return f"{what} both in {first} and in {second}: {listed}{more}"


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """An image that is identical to others, in the same or another split."""

    hash: str  # hash of the prepared pixels, the same for all copies
    split: str  # name of the split
    id: str  # id of the image
    in_neighbours: bool  # whether all of its copies are neighbouring slices of one scan


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """Facts about one split."""

    normal: int  # number of normal images
    anomalous: int  # number of anomalous images
    patients: int  # number of groups
    with_mask: int  # number of images whose mask marks a pixel
    repeated: int  # number of images that repeat an earlier one of the split under another id
    size: str  # shape of a prepared image, such as `64x64x1`
    mean: float  # mean of the prepared images, in [0, 1]
    standard_deviation: float  # standard deviation of the same pixels
    #: facts about the files; None for data that are not in files of the user's
    files: FilesRead | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Facts about a data set."""

    name: str
    splits: Mapping[str, SplitFacts]  # facts by name of the split
    leaks: tuple[Leak, ...]  # what any two splits have in common
    unread: tuple[str, ...] = ()  # one line for each folder with files that are not read
    duplicates: tuple[Duplicate, ...] = ()  # all images that have a copy, copies together
    unknown_patients: str = ""  # a note if no patient is known; "" otherwise

    @property
    def skipped(self) -> tuple[str, ...]:
        """One reason for each bad file."""
        files = (facts.files for facts in self.splits.values() if facts.files)
        return tuple(reason for read in files for reason in read.skipped)

    def lines(self) -> list[str]:
        """Returns a table for people, followed by everything that is wrong."""
        head = ("split", "images", "normal", "anomalous", "patients", "masks", "files", "skipped",
                "blank", "sizes of files", "values in files")  # fmt: skip
        rows = [head, *(_row(name, facts) for name, facts in self.splits.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for name, facts in self.splits.items():
            if facts.repeated:
                repeat = "image repeats" if facts.repeated == 1 else "images repeat"
                lines.append(f"note: {name}: {facts.repeated:,} {repeat} another one.")
            if facts.files and facts.files.slices_left_out:
                lines.append(
                    f"note: {name}: {facts.files.slices_left_out:,} slices are constant or have "
                    "too little foreground or too small an anomaly, and are left out."
                )
            lines.extend(
                line
                for describe in (describe_blank, describe_noise)
                if facts.files and (line := describe(name, facts.files))
            )
            for reason in facts.files.skipped if facts.files else ():
                lines.append(f"bad file: {name}: {reason}")
        if self.unknown_patients:
            lines.append(self.unknown_patients)
        if self.duplicates:
            lines.append(self._describe_duplicates())
        return [*lines, *(f"leak: {leak}" for leak in self.leaks)]

    def _describe_duplicates(self) -> str:
        sets = {copy.hash: copy.in_neighbours for copy in self.duplicates}
        neighbours = sum(sets.values())
        different = counted(len(sets), "different image")
        text = (
            f"note: {len(self.duplicates):,} images have a copy ({different}); duplicates.csv "
            "lists all of them."
        )
        if neighbours:
            text += (
                f" {neighbours:,} of the {len(sets):,} are repeated only in consecutive images, "
                "as neighbouring slices of one scan are; keep all slices of a scan in one split, "
                "by its patient (the column group, or config.data.group_pattern)."
            )
        return text


def _row(name: str, facts: SplitFacts) -> tuple[str, ...]:
    files = facts.files
    if files is None:
        file_columns = ("-", "-", "-", "-", "-")
    else:
        sizes = [f"{size} ({count:,})" for size, count in files.sizes.items()]
        hidden = len(sizes) - _MAX_EXAMPLES
        listed = ", ".join(sizes[:_MAX_EXAMPLES]) + (f", {hidden} more" if hidden > 0 else "")
        values = "-" if files.lowest is None else f"{files.lowest:g} to {files.highest:g}"
        left_out = (f"{len(files.skipped):,}", f"{len(files.blank):,}")
        file_columns = (f"{files.count:,}", *left_out, listed, values)
    counts = (facts.normal + facts.anomalous, facts.normal, facts.anomalous, facts.patients,
              facts.with_mask)  # fmt: skip
    return (name, *(f"{count:,}" for count in counts), *file_columns)


def inspect(data: ConfigDict) -> tuple[Inspection, DataSet]:
    """Reads and compares all splits; bad files are skipped and counted.

    Raises:
        UserError: the data set cannot be opened, or a split is unusable as a whole.
    """
    lenient = data.copy_and_resolve_references().unlock()
    lenient.on_error = "skip"
    data_set = DataSet(lenient.lock(), measure=True)
    splits = {name: data_set.split(name) for name in data_set.split_names}
    digests = image_digests(splits)
    leaks = [
        leak
        for first, second in itertools.combinations(splits, 2)
        for leak in _leaks(first, second, splits, digests, data_set.info.is_users_own)
    ]
    facts = {name: _facts(split, digests[name]) for name, split in splits.items()}
    unread = tuple(map(str, filter(None, data_set.unread)))
    duplicates = find_duplicates(splits, digests)
    note = data_set.describe_unknown_patients()
    return Inspection(data.name, facts, tuple(leaks), unread, duplicates, note), data_set


def find_duplicates(
    splits: Mapping[str, Split], digests: Mapping[str, Sequence[bytes]]
) -> tuple[Duplicate, ...]:
    """Returns all images that have a copy in any split, copies together."""
    copies = defaultdict(list)
    for name, split in splits.items():
        for index, digest in enumerate(digests[name]):
            copies[digest].append((name, split, index))
    duplicates = []
    for digest, members in copies.items():
        if len(members) > 1:
            are_neighbours = _are_neighbours([_slice_of(split, n) for _, split, n in members])
            for name, split, index in members:
                copy = Duplicate(digest.hex(), name, split.ids[index], are_neighbours)
                duplicates.append(copy)
    return tuple(duplicates)


def _slice_of(split: Split, index: int) -> tuple[str, int] | None:
    """Returns the scan of an image and the number of its slice; None if they are unknown.

    If the data do not give the patient and the position, the last number in the id is the slice.
    """
    group = split.groups[index]
    if split.positions is not None and group not in split.unnamed:
        return group, int(split.positions[index])
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", split.ids[index])
    return None if match is None else (match[1] + match[3], int(match[2]))


def _are_neighbours(slices: Sequence[tuple[str, int] | None]) -> bool:
    """Tells whether slices are consecutive ones of one scan."""
    known = [slice_ for slice_ in slices if slice_ is not None]
    numbers = sorted(number for _, number in known)
    is_consecutive = all(after - before == 1 for before, after in itertools.pairwise(numbers))
    return len(known) == len(slices) and len({scan for scan, _ in known}) == 1 and is_consecutive


def write_duplicates(path: Path, inspection: Inspection) -> None:
    """Writes a CSV file with one row per image that has a copy: `hash`, `split`, `id`."""
    with atomic_write(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("hash", "split", "id"))
        rows.writerows((copy.hash, copy.split, copy.id) for copy in inspection.duplicates)


def check(inspection: Inspection, data_set: DataSet, on_error: str) -> None:
    """Checks what an inspection found; `on_error` is that of `config.data`.

    Raises:
        UserError: an image or a patient is in two splits; or a file cannot be read, and `on_error`
            is `raise`.
    """
    if inspection.leaks:
        remedy = _leak_remedy(inspection.leaks, data_set)
        raise UserError(f"{inspection.name}: splits leak, as listed above. {remedy}")
    if on_error != "raise":
        return
    if inspection.skipped:
        bad = counted(len(inspection.skipped), "bad file")
        raise UserError(
            f"{inspection.name}: {bad}, listed above; repair or remove what is listed, or leave it "
            "out with --config.data.on_error=skip."
        )
    for unread in data_set.unread:
        if unread.others:
            tell_unread(unread, is_strict=True)


def _leak_remedy(leaks: Sequence[Leak], data_set: DataSet) -> str:
    """Returns the advice for a data set whose splits leak."""
    if data_set.info.shares_patients:
        return "As published; --config.data.regroup=True learns from none that is tested."
    hint = f" {SEVERAL_UNDER_ONE_NAME}" if data_set.info.kind == "files" else ""
    are_in_training = any(
        leak.kind == "image" and set(leak.splits) & set(TRAINING_SPLITS) for leak in leaks
    )
    leave_out = ""
    if are_in_training:
        leave_out = ", or leave copies out of train and val with --config.data.duplicates=leave_out"
    return (
        "Keep each patient in one split, and only one of several copies of an image"
        f"{leave_out}.{hint}"
    )


def _facts(split: Split, digests: list[bytes]) -> SplitFacts:
    anomalous = int(split.labels.sum())
    # Only one chunk at a time is held as float64.
    sums = np.zeros(2)
    for rows in np.array_split(np.arange(len(split)), max(1, len(split) // 256)):
        values = to_unit_interval(split.images[rows]).astype(np.float64)
        sums += values.sum(), (values**2).sum()
    mean, mean_square = sums / np.prod(split.images.shape)
    return SplitFacts(
        normal=len(split) - anomalous,
        anomalous=anomalous,
        patients=len(set(split.groups)),
        with_mask=0 if split.masks is None else int(are_marked(split.masks).sum()),
        repeated=len(split) - len(set(digests)),
        size="x".join(map(str, split.images.shape[1:])),
        mean=float(mean),
        standard_deviation=float(np.sqrt(max(0.0, mean_square - mean**2))),
        files=split.files,
    )


def _leaks(
    first: str,
    second: str,
    splits: Mapping[str, Split],
    digests: Mapping[str, list[bytes]],
    by_spelling: bool,
) -> list[Leak]:
    """Finds images and patients that are in both splits; `by_spelling` also compares spellings."""
    leaks = []
    ids, others = (_ids_by_digest(splits[name].ids, digests[name]) for name in (first, second))
    shared = [digest for digest in others if digest in ids]
    if shared:
        count = sum(len(others[digest]) for digest in shared)
        examples = tuple(" = ".join([*ids[digest], *others[digest]]) for digest in shared)
        leaks.append(Leak("image", (first, second), count, examples))
    patients = tuple(sorted(set(splits[first].groups) & set(splits[second].groups)))
    named = (named_patients(splits[name]) for name in (first, second))
    pairs = spelt_alike(*named) if by_spelling else []
    for examples in (patients, tuple(f"{patient} = {other}" for patient, other in pairs)):
        if examples:
            leaks.append(Leak("patient", (first, second), len(examples), examples))
    return leaks


def _ids_by_digest(ids: Sequence[str], digests: Sequence[bytes]) -> dict[bytes, list[str]]:
    ids_by_digest = defaultdict(list)
    for name, digest in zip(ids, digests, strict=True):
        ids_by_digest[digest].append(name)
    return dict(ids_by_digest)
