"""Data sets that are a CSV file with one row per image or scan."""

import csv
import dataclasses
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_search import refuse_masks
from jaxad.data.files.names import by_folded_name, folded, split_of, split_suggested
from jaxad.data.files.splitting import Splitting, draw_splits, with_val
from jaxad.data.files.spreadsheets import DELIMITERS, parse
from jaxad.data.files.table_columns import check_columns
from jaxad.data.readers.checks import is_hidden
from jaxad.errors import UserError

logger = logging.getLogger(__name__)

_COLUMNS = ("path", "label", "group", "mask", "id", "split", "position")

#: Columns that only training and evaluation use.
_LABELLING = ("label", "mask", "split")

#: What the labels of a table are for: training needs them, normal images must not contradict them,
#: and scoring ignores them.
Labels = Literal["required", "optional", "ignored"]

_POSITIONS = np.iinfo(np.int32)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of a table."""

    where: str  # the file and the line, for messages
    line: int
    cells: Mapping[str, str]  # text by known column, without surrounding spaces
    extra: Mapping[str, str]  # text by other column, as it is

    def text(self, column: str) -> str:
        """The text in a column; "" if the table has no such column."""
        return self.cells.get(column, "")


def read_table(
    table: Path,
    kind: Kind,
    splitting: Splitting,
    *,
    allow_outside_root: bool,
    test_only: bool = False,
) -> dict[str, list[Item]]:
    """Lists the items of a CSV file by split; see `read_rows`.

    The column `split` has `train`, `val`, `test` or `test_<name>`. Without it, patients with an
    anomaly go to `test`, and the others are drawn at random. With `test_only`, nothing is drawn:
    `train` and `val` may be missing, and without the column all rows go to `test`.

    Raises:
        UserError: see `read_rows`; or no row has the split `train`.
    """
    rows = read_rows(
        table,
        kind,
        splitting,
        labels="required",
        allow_outside_root=allow_outside_root,
        flag="--config.data.allow_outside_root=True",
    )
    if all(not split for split, _ in rows):
        items = [item for _, item in rows]
        return {"test": items} if test_only else draw_splits(items, splitting)
    splits: dict[str, list[Item]] = {}
    for name, item in rows:
        splits.setdefault(name, []).append(item)
    if test_only:
        return splits
    if "train" not in splits:
        raise UserError(f"{table}: no row has split 'train'; add normal images with this split.")
    return splits if "val" in splits else with_val(splits, splitting)


def read_rows(
    table: Path,
    kind: Kind,
    splitting: Splitting,
    *,
    labels: Labels,
    allow_outside_root: bool,
    flag: str,
) -> list[tuple[str, Item]]:
    """Lists the items of a CSV file, each with its split, or "" if the file has no column `split`.

    Columns: `path` and `label` (0 for normal, 1 for anomalous, or names of classes with
    `config.data.normal_classes`; empty if the mask of a scan labels its slices); optionally `group`
    (the patient), `mask`, `id`, `split` and, for images, `position`. All others become `Item.extra`
    and are logged. Paths are relative to the folder of the table and must not lead out of it; with
    `allow_outside_root`, absolute paths may; `flag` is how the caller's user sets it. If labels are
    `optional`, rows without a column `label` are normal. If they are `ignored`, `label`, `mask` and
    `split` are extra columns.

    Raises:
        UserError: the file cannot be read, or a row is wrong; the message gives its line.
    """
    unused: tuple[str, ...] = _LABELLING if labels == "ignored" else ()
    # Slices of scans are numbered by their place in the scan.
    unused += () if kind == "image" else ("position",)
    known = [name for name in _COLUMNS if name not in unused]
    needed = ("path", "label") if labels == "required" else ("path",)
    rows = _read(table, known, needed)
    if extra := ", ".join(rows[0].extra):
        logger.info(f"{table}: extra columns carried through: {extra}")
    _check_complete(rows, "group", "name the patient of every row or of none")
    _check_complete(rows, "position", "number every image or none")
    _check_spellings(table, rows, splitting)
    words = {row.text("label") for row in rows} - {""}
    if labels == "required" and not words <= {"0", "1"}:
        splitting.check_listed(words, str(table), "label")
        for word in sorted(words) if splitting.normal_classes else ():
            splitting.check_class(word, f"{table}: label '{word}'", words)
    allowed_by = "" if allow_outside_root else flag
    items: list[tuple[str, Item]] = []
    line_of_id: dict[str, int] = {}
    line_of_file: dict[Path, int] = {}
    for row in rows:
        item = _item(table, row, kind, splitting, allowed_by)
        path = item.paths[0]
        if item.id in line_of_id:
            raise UserError(
                f"{row.where}: '{item.id}' is already on line {line_of_id[item.id]}; give every "
                "image its own id and one row."
            )
        if path in line_of_file:
            raise UserError(
                f"{row.where}: '{path}' is already on line {line_of_file[path]}; give every file "
                "one row."
            )
        line_of_id[item.id] = line_of_file[path] = row.line
        items.append((_split(row), item))
    _refuse_masks(table, [item for _, item in items], kind)
    return items


def files_listed(table: Path) -> list[Path]:
    """Returns the images or scans that a CSV file lists; other columns are not checked.

    Raises:
        UserError: the file cannot be read, or a row names no file.
    """
    rows = _read(table, ("path",), ("path",))
    return [_resolve(table, row.where, row.text("path"), allowed_by="")[0] for row in rows]


# --- The file.


def _read(table: Path, known: Sequence[str], needed: Sequence[str]) -> list[_Row]:
    """Returns the rows of a table that are not blank, split into known and other columns."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            columns, lines, delimiter = parse(file.read())
    except FileNotFoundError as error:
        raise UserError(f"{table}: no such file; name an existing one.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{table}: not a readable CSV file ({error}); write it in UTF-8 with a header line."
        ) from error
    if not columns:
        raise UserError(f"{table}: is empty; write a header line, and a row for each image.")
    named = {column: place for place, column in enumerate(columns) if column}
    spelling = by_folded_name(filter(None, columns), str(table), "column")
    contents = {name: [row[n] for _, row in lines if n < len(row)] for name, n in named.items()}
    check_columns(table, contents, spelling, known, needed)
    if not lines:
        raise UserError(f"{table}: has no rows; add one for each image.")
    filled = {place for _, cells in lines for place, cell in enumerate(cells) if cell.strip()}
    for place, column in enumerate(columns):
        if not column and place in filled:
            logger.warning(f"note: {table}: column {place + 1} has no name and is ignored.")
    num_needed = 1 + max((place for place in named.values() if place in filled), default=0)
    known_places = {name: named[spelling[name]] for name in known if name in spelling}
    extra_places = {name: named[name] for name in spelling.values() if folded(name) not in known}
    rows = []
    for line, cells in lines:
        where = f"{table} line {line}"
        if any(map(str.strip, cells[len(columns) :])):
            raise UserError(
                f"{where}: has more fields than the header line; quote fields that contain "
                f"{DELIMITERS.get(delimiter, repr(delimiter))}."
            )
        if len(cells) < num_needed:
            raise UserError(
                f"{where}: has {len(cells)} of the {len(columns)} fields of the header line; fill "
                "in the others, or write a delimiter for each empty one. If this is only part of a "
                "row, a line break cuts the row in two: save the file with one kind of line end, "
                "and quote fields that contain line breaks."
            )
        cells += [""] * (len(columns) - len(cells))
        texts = {name: cells[place].strip() for name, place in known_places.items()}
        extra = {name: cells[place] for name, place in extra_places.items()}
        rows.append(_Row(where, line, texts, extra))
    return rows


def _check_complete(rows: Sequence[_Row], column: str, remedy: str) -> None:
    """Raises a UserError if some rows have a text in a column and others have none."""
    empty = [row for row in rows if not row.text(column)]
    if 0 < len(empty) < len(rows):
        raise UserError(f"{empty[0].where}: has no {column}, while others have one; {remedy}.")


def _check_spellings(table: Path, rows: Sequence[_Row], splitting: Splitting) -> None:
    """Raises a UserError if a class or a split has two spellings."""
    for column in ("label", "split"):
        first: dict[str, tuple[str, int]] = {}
        for row in rows:
            text = row.text(column)
            other, other_line = first.setdefault(folded(text), (text, row.line))
            # `config.data.normal_classes` may list both spellings.
            if other != text and not {other, text} <= set(splitting.normal_classes):
                raise UserError(
                    f"{row.where}: {column} '{text}' is spelt '{other}' on line {other_line}; use "
                    "one spelling."
                )


def _refuse_masks(table: Path, items: Sequence[Item], kind: Kind) -> None:
    """Raises a UserError if the image of a row is a mask."""
    by_mask = {item.mask: item for item in items if item.mask is not None}
    for item in items:
        marked = by_mask.get(item.paths[0])
        if marked is not None:
            raise UserError(
                f"{table}: '{item.id}' is both the mask of '{marked.id}' and an image; remove its "
                "row, or name another mask."
            )
    paths = [path for item in items for path in item.paths]
    remedy = "name it in the column mask of its image, or remove its row"
    refuse_masks(paths, kind, _folder_of(table), remedy)


def _item(table: Path, row: _Row, kind: Kind, splitting: Splitting, allowed_by: str) -> Item:
    path, place = _resolve(table, row.where, row.text("path"), allowed_by)
    mask = row.text("mask")
    group = row.text("group") or splitting.patient_of(path, place)
    return Item(
        id=row.text("id") or place,
        group=group,
        paths=(path,),
        label=_label(row, kind, splitting) if "label" in row.cells else 0,
        mask=_resolve(table, row.where, mask, allowed_by)[0] if mask else None,
        is_unnamed=group == place,
        position=_position(row),
        extra=row.extra,
    )


def _resolve(table: Path, where: str, text: str, allowed_by: str) -> tuple[Path, str]:
    """Returns the absolute path that a row names, and its name in the data set.

    The name is the path below the folder of the table, or the whole path if it lies outside, which
    only absolute paths may do. `allowed_by` is the flag that allows this; "" if it is set.
    """
    if not text or "\0" in text:
        raise UserError(f"{where}: has no path; name the file.")
    root = _folder_of(table)
    path = Path(os.path.normpath(root / text))
    if Path(text).is_absolute() and not path.is_relative_to(root):
        # It may spell the table's folder in another way, such as through a link.
        folder, real_root = path.parent.resolve(), root.resolve()
        if folder.is_relative_to(real_root):
            path = root / folder.relative_to(real_root) / path.name
    is_inside = path.is_relative_to(root)
    remedies = [] if Path(text).is_absolute() else ["write its absolute path"]
    remedies += [f"set {allowed_by}"] if allowed_by else []
    if not is_inside and remedies:
        raise UserError(
            f"{where}: '{text}' is outside the table's folder; {' and '.join(remedies)}, or move "
            "the table or the file."
        )
    place = path.relative_to(root) if is_inside else path
    if any(map(is_hidden, place.parts if is_inside else (path.name,))):
        raise UserError(
            f"{where}: '{text}' is a hidden file, probably made by the operating system; name "
            "another file, or rename it."
        )
    return path, place.as_posix()


def _folder_of(table: Path) -> Path:
    """Returns the absolute folder of a table, without `..`."""
    # `..` after a link means the parent of its target, so that the text alone does not tell.
    return table.parent.resolve() if ".." in table.parts else table.parent.absolute()


def _label(row: _Row, kind: Kind, splitting: Splitting) -> int | None:
    # The mask of a scan tells which of its slices are anomalous.
    text, is_by_slice = row.text("label"), bool(row.text("mask")) and kind != "image"
    if not text and is_by_slice:
        return None
    # Numbers among the classes are names; otherwise 0 and 1 always mean normal and anomalous.
    is_named = text not in ("0", "1") or bool({"0", "1"} & set(splitting.normal_classes))
    if splitting.normal_classes and is_named:
        if not text:
            raise UserError(f"{row.where}: has no label; name the class.")
        label = int(not splitting.is_normal(text))
    elif text in ("0", "1"):
        label = int(text)
    else:
        raise UserError(
            f"{row.where}: label '{text}' is neither 0 (normal) nor 1 (anomalous); write 0 or 1, "
            "or list the normal classes in config.data.normal_classes."
        )
    return None if label and is_by_slice else label


def _position(row: _Row) -> int | None:
    """Returns the slice index of an image; spreadsheets may write 7 as 7.0."""
    text = row.text("position")
    if not text:
        return None
    number = int(text.partition(".")[0]) if re.fullmatch(r"[+-]?\d{1,10}(\.0*)?", text) else None
    if number is None or not _POSITIONS.min <= number <= _POSITIONS.max:
        raise UserError(
            f"{row.where}: position '{text}' is not a slice index; write a whole number, or rename "
            "the column to 'extra_position'."
        )
    return number


def _split(row: _Row) -> str:
    if "split" not in row.cells:
        return ""
    text = row.text("split")
    name = split_of(text)
    if not name:
        suggested = split_suggested(text)
        hint = f" Write '{suggested}' for it." if suggested else ""
        raise UserError(
            f"{row.where}: split '{text}' is not train, val, test or test_<name>.{hint}"
        )
    return name
