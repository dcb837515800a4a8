"""CSV tables that grow while files are scored and continue after an interruption.

`progress.json` holds the valid length of each table; bytes beyond it, which an interruption may
leave, are cut off.
"""

import csv
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from jaxad.errors import UserError
from jaxad.storage import working_copies
from jaxad.storage.csv_text import csv_text
from jaxad.storage.workdir import atomic_write, naming, write_json

SCORES, ERRORS, PATIENTS = "scores.csv", "errors.csv", "patients.csv"
_PROGRESS = "progress.json"
_MAPS = "maps"
_ERROR_COLUMNS = ("id", "error")
#: Rows whose decisions are made again together.
_BLOCK = 4096

#: Makes rows of `scores.csv` from stored ones, whose scores stay as they are.
Decide = Callable[[Sequence[Mapping[str, str]]], Iterable[Mapping[str, Any]]]


class Tables:
    """The tables `scores.csv` and `errors.csv` of a folder, which hold `num_done` items."""

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        task: Mapping[str, Any],
        may_change: Collection[str],
        decide: Decide,
    ):
        """Creates the tables, or opens those of an interrupted call.

        Args:
            folder: the folder they are in.
            columns: the columns of `scores.csv`.
            task: identifies detector, input and options.
            may_change: the parts of the task that may differ from those of existing tables, because
                `decide` makes the rows that they affect again.
            decide: see `Decide`.

        Raises:
            UserError: the folder holds scores of another task, or damaged tables.
        """
        self._folder = folder
        self._columns = tuple(columns)
        self._task = dict(task)
        progress = self._read_progress(may_change)
        self.num_done = 0 if progress is None else int(progress["items"])
        self.num_decided_again = 0
        sizes = {} if progress is None else progress["bytes"]
        if progress is None:  # written first: tables without it belong to something else
            self._declare_empty()
        for name, head in ((SCORES, self._columns), (ERRORS, _ERROR_COLUMNS)):
            path = folder / name
            if not self.num_done:
                with naming(path):
                    path.write_text(csv_text([head]), encoding="utf-8", errors="surrogateescape")
            elif not path.exists() or path.stat().st_size < sizes[name]:
                raise UserError(
                    f"'{path}': is shorter than when it was last written; choose another --output."
                )
            else:
                os.truncate(path, sizes[name])
        if self.num_done and progress is not None and progress["task"] != self._task:
            self._decide_again(decide)
        self._write_progress()

    def _decide_again(self, decide: Decide) -> None:
        """Makes all rows of `scores.csv` again from their scores."""
        num_done = self.num_done
        with atomic_write(self._folder / SCORES, "wb") as file:
            file.write(_encoded(csv_text([self._columns])))
            for block in _blocks(self.rows()):
                file.write(_encoded(csv_text(self._cells(decide(block)))))
                self.num_decided_again += len(block)
            # A kill after the new table has replaced the old one must not leave the old sizes.
            self._declare_empty()
        self.num_done = num_done

    def _cells(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        return ([row[name] for name in self._columns] for row in rows)

    def add(
        self, rows: Iterable[Mapping[str, Any]], errors: Iterable[tuple[str, str]], items: int
    ) -> None:
        """Appends the rows and errors of the next `items` items."""
        for name, lines in ((SCORES, self._cells(rows)), (ERRORS, errors)):
            with naming(self._folder / name), self._open(name, "a") as file:
                file.write(csv_text(lines))
                file.flush()
                os.fsync(file.fileno())
        self.num_done += items
        self._write_progress()

    def rows(self) -> Iterable[dict[str, str]]:
        """Yields the rows of `scores.csv`."""
        with self._open(SCORES) as file:
            yield from csv.DictReader(file)

    def errors(self) -> Iterator[dict[str, str]]:
        """Yields the rows of `errors.csv`."""
        with self._open(ERRORS) as file:
            yield from csv.DictReader(file)

    def write_patients(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Writes `patients.csv`."""
        with atomic_write(self._folder / PATIENTS, "wb") as file:
            file.write(_encoded(csv_text([columns, *rows])))

    def discard_scores(self) -> None:
        """Removes `scores.csv`, which has no rows; the same call then begins again."""
        self._declare_empty()
        (self._folder / SCORES).unlink()

    def _open(self, name: str, mode: str = "r") -> IO[str]:
        path = self._folder / name
        # File names need not be UTF-8.
        return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")

    def _declare_empty(self) -> None:
        """Writes that no rows are valid, before tables are written that are no continuation."""
        self.num_done = 0
        self._write_progress(dict.fromkeys((SCORES, ERRORS), 0))
        working_copies.publish(self._folder, now=True)

    def _write_progress(self, sizes: Mapping[str, int] | None = None) -> None:
        if sizes is None:
            sizes = {name: (self._folder / name).stat().st_size for name in (SCORES, ERRORS)}
        progress = {"items": self.num_done, "bytes": dict(sizes), "task": self._task}
        write_json(self._folder / _PROGRESS, progress)

    def _read_progress(self, may_change: Collection[str]) -> dict[str, Any] | None:
        path = self._folder / _PROGRESS
        try:
            progress = json.loads(path.read_text(encoding="utf-8"))
            task = progress["task"]
            int(progress["items"]), {int(progress["bytes"][name]) for name in (SCORES, ERRORS)}
        except FileNotFoundError:
            for name in (SCORES, ERRORS, PATIENTS):
                if (self._folder / name).exists():
                    raise UserError(
                        f"--output '{self._folder}': already holds a {name}; choose another folder."
                    ) from None
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{path}' cannot be read ({error!r}); choose another --output.") from (
                error
            )
        is_empty = not (int(progress["items"]) or (self._folder / PATIENTS).exists())
        if is_empty and not (self._folder / _MAPS).exists():
            return None  # an attempt that scored nothing does not block the folder
        for name, value in self._task.items():
            if task.get(name) != value and name not in may_change:
                raise UserError(
                    f"--output '{self._folder}': holds scores of another {name}; choose another "
                    "folder."
                )
        return progress


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")  # file names need not be UTF-8


def _blocks(rows: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    iterator = iter(rows)
    return iter(lambda: list(itertools.islice(iterator, _BLOCK)), [])


def digest(names: Iterable[str]) -> str:
    """Returns a digest of texts that may hold undecodable bytes."""
    total = hashlib.blake2b(digest_size=8)
    for name in names:
        total.update(name.encode(errors="surrogateescape") + b"\0")
    return total.hexdigest()
