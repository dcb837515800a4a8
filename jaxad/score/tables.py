"""Tables that grow while files are scored, and go on where a killed run left them.

What is in a table counts once `progress.json` says so: what a kill left behind it is cut off.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from jaxad.errors import UserError
from jaxad.storage.workdir import atomic_write, naming, write_json

SCORES, ERRORS, PATIENTS = "scores.csv", "errors.csv", "patients.csv"
_PROGRESS = "progress.json"
_ERROR_COLUMNS = ("id", "error")


class Tables:
    """`scores.csv` and `errors.csv` of a folder.

    Attributes:
        num_done: items that are in them.
    """

    def __init__(self, folder: Path, columns: Sequence[str], asked: Mapping[str, Any]):
        """Opens the tables, or goes on with those that are there.

        Args:
            folder: where they are.
            columns: of `scores.csv`.
            asked: what is scored, by what and how: tables of anything else are refused.

        Raises:
            UserError: the folder holds tables of something else, or damaged ones.
        """
        self._folder = folder
        self._columns = tuple(columns)
        self._asked = dict(asked)
        found = self._progress()
        self.num_done = 0 if found is None else int(found["items"])
        sizes = {} if found is None else found["bytes"]
        if found is None:  # first: tables without it are somebody else's
            self._save(dict.fromkeys((SCORES, ERRORS), 0))
        for name, head in ((SCORES, self._columns), (ERRORS, _ERROR_COLUMNS)):
            path = folder / name
            if not self.num_done:
                with naming(path):
                    path.write_text(_line(head), encoding="utf-8", errors="surrogateescape")
            elif not path.exists() or path.stat().st_size < sizes[name]:
                raise UserError(f"'{path}': is shorter than it was; choose another --output.")
            else:
                os.truncate(path, sizes[name])
        self._save()

    def add(
        self, rows: Iterable[Mapping[str, Any]], errors: Iterable[tuple[str, str]], items: int
    ) -> None:
        """Appends what so many more items became."""
        lines = {
            SCORES: [[row[name] for name in self._columns] for row in rows],
            ERRORS: [list(error) for error in errors],
        }
        for name, cells in lines.items():
            path = self._folder / name
            with naming(path), self._open(name, "a") as file:
                file.write("".join(map(_line, cells)))
                file.flush()
                os.fsync(file.fileno())
        self.num_done += items
        self._save()

    def rows(self) -> Iterable[dict[str, str]]:
        """Those of `scores.csv`, one by one."""
        with self._open(SCORES) as file:
            yield from csv.DictReader(file)

    def num_errors(self) -> int:
        """Lines of `errors.csv`."""
        with self._open(ERRORS) as file:
            return sum(1 for _ in csv.DictReader(file))

    def write_patients(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Writes `patients.csv`."""
        lines = [_line(columns), *map(_line, rows)]
        with atomic_write(self._folder / PATIENTS, "wb") as file:
            file.write("".join(lines).encode("utf-8", errors="surrogateescape"))

    def _open(self, name: str, mode: str = "r") -> IO[str]:
        # Names of files need not be UTF-8.
        path = self._folder / name
        return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")

    def _save(self, sizes: Mapping[str, int] | None = None) -> None:
        if sizes is None:
            sizes = {name: (self._folder / name).stat().st_size for name in (SCORES, ERRORS)}
        progress = {"items": self.num_done, "bytes": dict(sizes), "asked": self._asked}
        write_json(self._folder / _PROGRESS, progress)

    def _progress(self) -> dict[str, Any] | None:
        path = self._folder / _PROGRESS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            asked = found["asked"]
            int(found["items"]), {int(found["bytes"][name]) for name in (SCORES, ERRORS)}
        except FileNotFoundError:
            there = [name for name in (SCORES, ERRORS, PATIENTS) if (self._folder / name).exists()]
            if there:
                raise UserError(
                    f"--output '{self._folder}': holds a {there[0]} already; choose another folder."
                ) from None
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{path}' cannot be read ({error!r}); choose another --output.") from (
                error
            )
        other = [name for name in self._asked if asked.get(name) != self._asked[name]]
        if other:
            raise UserError(
                f"--output '{self._folder}': holds scores of another {other[0]}; choose another "
                "folder."
            )
        return found


def digest(names: Iterable[str]) -> str:
    """Of the files to score: others are another task."""
    found = hashlib.blake2b(digest_size=8)
    for name in names:
        found.update(name.encode(errors="surrogateescape") + b"\0")
    return found.hexdigest()


def _line(cells: Iterable[Any]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue()
