"""`eval/<split>/scores.csv`: the scores of a test split, one row per image."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxad.detector.detector import SCORE, extra_columns
from jaxad.evaluate.paired import ScoredSplit
from jaxad.evaluate.positions import CORRECTED_SCORE
from jaxad.storage.csv_text import csv_text
from jaxad.storage.workdir import atomic_write
from jaxad.types import Split, group_numbers

Scalars = Float[np.ndarray, " n"]

_HEADING = ("id", "group", "position", "label")


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """The rows of a `scores.csv`, one per image.

    Attributes:
        groups: the patients.
        positions: slice indices; None without positions.
        labels: 1 = anomalous, 0 = normal.
        columns: `score`, its components and, last, `CORRECTED_SCORE` where there are positions.
            Float64; all but the last hold float32 values exactly, so that a score that equals a
            threshold still equals it.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    positions: Int[np.ndarray, " n"] | None
    labels: Int[np.ndarray, " n"]
    columns: dict[str, Scalars]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def components(self) -> dict[str, Scalars]:
        """The components of the score by name."""
        names = [name for name in self.columns if name not in (SCORE, CORRECTED_SCORE)]
        return {name: self.columns[name] for name in names}

    def rows(self, chosen: Int[np.ndarray, " rows"]) -> "ScoreTable":
        """Returns the chosen rows, in that order."""
        return ScoreTable(
            ids=tuple(self.ids[row] for row in chosen),
            groups=tuple(self.groups[row] for row in chosen),
            positions=None if self.positions is None else self.positions[chosen],
            labels=self.labels[chosen],
            columns={name: values[chosen] for name, values in self.columns.items()},
        )

    def scored(self) -> ScoredSplit:
        """Returns the arrays that metrics and paired comparisons take."""
        return ScoredSplit(self.labels, group_numbers(self.groups), self.columns)


def write_score_table(path: Path, split: Split, columns: Mapping[str, Scalars]) -> None:
    """Writes a table; floats as the shortest text that reads back to the same bits.

    The extra columns of the split precede the column `score`.
    """
    extra = extra_columns(split.extra, (*_HEADING, *columns))
    with atomic_write(path) as file:
        positions = [""] * len(split) if split.positions is None else split.positions.tolist()
        texts = [split.ids, split.groups, positions, split.labels.tolist(), *split.extra.values()]
        values = [map(str, column) for column in columns.values()]
        heading = [*_HEADING, *extra.values(), *columns]
        file.write(csv_text([heading, *zip(*texts, *values, strict=True)]))


def read_score_table(path: Path) -> ScoreTable:
    """Reads a table, except its extra columns.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError, KeyError, csv.Error: it is damaged.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = list(reader.fieldnames or ())
        rows = list(reader)
    missing = [name for name in (*_HEADING, SCORE) if name not in names]
    if missing:
        raise ValueError(f"it has no column '{missing[0]}'")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row has more or fewer cells than the heading")
    positions = [row["position"] for row in rows]
    return ScoreTable(
        ids=tuple(row["id"] for row in rows),
        groups=tuple(row["group"] for row in rows),
        positions=np.array(positions, np.int64) if all(positions) else None,
        labels=np.array([int(row["label"]) for row in rows], np.int64),
        columns={
            name: np.array(
                [row[name] for row in rows], np.float64 if name == CORRECTED_SCORE else np.float32
            ).astype(np.float64)
            for name in names[names.index(SCORE) :]
        },
    )
