"""A look at a data set before it is trained on: what is there, what is bad, and what leaks."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad.data.leaks import image_digests, named_patients, spelt_alike
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet, is_own
from jaxad.types import FilesRead, Split

#: Of a finding, the examples that a line lists.
_TOLD = 3


@dataclasses.dataclass(frozen=True)
class Leak:
    """What two splits have in common.

    Attributes:
        kind: `image` or `patient`.
        splits: the two.
        count: how many they share: of images, those of the second split.
        examples: all of them, as `<id> = <id>` of images, all copies of one in one text, or the
            patients' names.
    """

    kind: str
    splits: tuple[str, str]
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        what = f"{self.count:,} {self.kind}{'s' * (self.count != 1)}"
        more = ", ..." if len(self.examples) > _TOLD else ""
        first, second = self.splits
        listed = ", ".join(self.examples[:_TOLD])
        return f"{what} both in {first} and in {second}: {listed}{more}"


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """What is in a split.

    Attributes:
        normal: images.
        anomalous: images.
        patients: groups.
        with_mask: images that mark a pixel.
        repeated: images that are in it before already, under another id.
        size: of a prepared image, such as `64x64x1`.
        mean: of the prepared images, [0, 1].
        standard_deviation: likewise.
        files: what it was read from; None for data that are no files of the user's.
    """

    normal: int
    anomalous: int
    patients: int
    with_mask: int
    repeated: int
    size: str
    mean: float
    standard_deviation: float
    files: FilesRead | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a look at a data set found.

    Attributes:
        name: of the data set.
        splits: by name.
        leaks: between them.
        unread: lines on files that are not read.
    """

    name: str
    splits: Mapping[str, SplitFacts]
    leaks: tuple[Leak, ...]
    unread: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """Why each bad file cannot be used."""
        facts = self.splits.values()
        return tuple(why for one in facts if one.files for why in one.files.skipped)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: a table, then what is bad."""
        head = ("split", "images", "normal", "anomalous", "patients", "masks", "files", "skipped",
                "sizes of files", "values in files")  # fmt: skip
        rows = [head, *(_row(name, facts) for name, facts in self.splits.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for name, facts in self.splits.items():
            if facts.repeated:
                lines.append(f"note: {name}: {facts.repeated:,} images are there twice or more.")
            if facts.files and facts.files.slices_left_out:
                lines.append(
                    f"note: {name}: {facts.files.slices_left_out:,} slices have too little "
                    "foreground or too small an anomaly and are left out."
                )
            for why in facts.files.skipped if facts.files else ():
                lines.append(f"bad file: {name}: {why}")
        return [*lines, *(f"leak: {leak}" for leak in self.leaks)]


def _row(name: str, facts: SplitFacts) -> tuple[str, ...]:
    files = facts.files
    if files is None:
        of_files = ("-", "-", "-", "-")
    else:
        sizes = [f"{size} ({count:,})" for size, count in files.sizes.items()]
        more = f", {len(sizes) - _TOLD} more" if len(sizes) > _TOLD else ""
        values = "-" if files.lowest is None else f"{files.lowest:g} to {files.highest:g}"
        of_files = (
            f"{files.count:,}", f"{len(files.skipped):,}", ", ".join(sizes[:_TOLD]) + more, values
        )  # fmt: skip
    counts = (facts.normal + facts.anomalous, facts.normal, facts.anomalous, facts.patients,
              facts.with_mask)  # fmt: skip
    return (name, *(f"{count:,}" for count in counts), *of_files)


def inspect(data: ConfigDict) -> tuple[Inspection, DataSet]:
    """Reads every split and compares them, skipping and counting what cannot be read.

    Raises:
        UserError: the data set cannot be opened, or a split is unusable as a whole.
    """
    lenient = data.copy_and_resolve_references().unlock()
    lenient.on_error = "skip"
    data_set = DataSet(lenient.lock(), measure=True)
    splits = {name: data_set.split(name) for name in data_set.split_names}
    hashes = image_digests(splits)
    leaks = []
    names = list(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            leaks += _leaks(first, second, splits, hashes, is_own(data.name))
    facts = {name: _facts(split, hashes[name]) for name, split in splits.items()}
    unread = tuple(map(str, filter(None, data_set.unread)))
    return Inspection(data.name, facts, tuple(leaks), unread), data_set


def _facts(split: Split, hashes: list[bytes]) -> SplitFacts:
    anomalous = int(split.labels.sum())
    # Sums of integers are exact; a chunk at a time is held as float.
    sums = np.zeros(2)
    for chunk in np.array_split(split.images, max(1, len(split) // 256)):
        values = to_unit_interval(chunk).astype(np.float64)
        sums += values.sum(), (values**2).sum()
    mean, square = sums / split.images.size
    return SplitFacts(
        normal=len(split) - anomalous,
        anomalous=anomalous,
        patients=len(set(split.groups)),
        with_mask=0 if split.masks is None else int(split.masks.any(axis=(1, 2)).sum()),
        repeated=len(split) - len(set(hashes)),
        size="x".join(map(str, split.images.shape[1:])),
        mean=float(mean),
        standard_deviation=float(np.sqrt(max(0.0, square - mean**2))),
        files=split.files,
    )


def _leaks(
    first: str,
    second: str,
    splits: Mapping[str, Split],
    hashes: Mapping[str, list[bytes]],
    by_spelling: bool,
) -> list[Leak]:
    """Images and patients that are in both splits; with `by_spelling` also other spellings."""
    leaks = []
    there, again = (_ids_by_hash(splits[name].ids, hashes[name]) for name in (first, second))
    shared = [key for key in again if key in there]
    if shared:
        count = sum(len(again[key]) for key in shared)
        examples = tuple(" = ".join([*there[key], *again[key]]) for key in shared)
        leaks.append(Leak("image", (first, second), count, examples))
    patients = tuple(sorted(set(splits[first].groups) & set(splits[second].groups)))
    if patients:
        leaks.append(Leak("patient", (first, second), len(patients), patients))
    alike = []
    if by_spelling:
        alike = spelt_alike(named_patients(splits[first]), named_patients(splits[second]))
    if alike:
        examples = tuple(f"{patient} = {other}" for patient, other in alike)
        leaks.append(Leak("patient", (first, second), len(alike), examples))
    return leaks


def _ids_by_hash(ids: Sequence[str], hashes: Sequence[bytes]) -> dict[bytes, list[str]]:
    ids_by_hash = collections.defaultdict(list)
    for name, key in zip(ids, hashes, strict=True):
        ids_by_hash[key].append(name)
    return dict(ids_by_hash)
