"""`eval/<split>/scores.csv`: what a run made of a test split, one row an image."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxad.detector.scorer import SCORE
from jaxad.evaluate.paired import ScoredSplit
from jaxad.storage.workdir import atomic_write
from jaxad.types import Split, group_numbers

Scalars = Float[np.ndarray, " n"]

#: The last column, where slices have positions.
CORRECTED_SCORE = "score_position_corrected"
_HEADING = ("id", "group", "position", "label")


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """The rows of a `scores.csv`.

    Attributes:
        ids: of the images.
        groups: the patient of each.
        positions: the slice index of each; None where they have none.
        labels: 1 = anomalous, 0 = normal.
        columns: `score`, then the components and whatever else there is, by name. Float64; but for
            `CORRECTED_SCORE`, the very float32 that was found: a score on a threshold stays on it.
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
        """What else was found beside the score, by name."""
        return {
            name: values
            for name, values in self.columns.items()
            if name not in (SCORE, CORRECTED_SCORE)
        }

    def rows(self, chosen: Int[np.ndarray, " rows"]) -> "ScoreTable":
        """Some of the rows, in this order."""
        return ScoreTable(
            ids=tuple(self.ids[row] for row in chosen),
            groups=tuple(self.groups[row] for row in chosen),
            positions=None if self.positions is None else self.positions[chosen],
            labels=self.labels[chosen],
            columns={name: values[chosen] for name, values in self.columns.items()},
        )

    def scored(self) -> ScoredSplit:
        """For metrics and paired comparisons."""
        return ScoredSplit(self.labels, group_numbers(self.groups), self.columns)


def write_score_table(path: Path, split: Split, columns: Mapping[str, Scalars]) -> None:
    """Writes a table; floats as the shortest text that reads back the same."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_HEADING, *columns])
        for row in range(len(split)):
            position = "" if split.positions is None else int(split.positions[row])
            values = [str(column[row]) for column in columns.values()]
            label = int(split.labels[row])
            writer.writerow([split.ids[row], split.groups[row], position, label, *values])


def read_score_table(path: Path) -> ScoreTable:
    """Reads a table.

    Raises:
        OSError: there is none, or it cannot be opened.
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
            for name in names
            if name not in _HEADING
        },
    )
