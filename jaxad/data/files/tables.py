"""Data sets that are a CSV file, a row an image or a scan: `path`, `label`, `group`, `mask`."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxad.data.files.folders import Splitting, draw_splits, with_val
from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_files import refuse_masks
from jaxad.data.files.names import folded, split_of, split_suggested
from jaxad.data.files.tree import is_hidden
from jaxad.errors import UserError

_COLUMNS = ("path", "label", "group", "mask", "id", "split")


def read_table(table: Path, kind: Kind, splitting: Splitting) -> dict[str, list[Item]]:
    """The items of a CSV file by split; see `read_rows`.

    A column `split` says `train`, `val`, `test` or `test_<name>`. Without it, patients with an
    anomaly are tested and the others drawn.

    Raises:
        UserError: the file cannot be read, or a row is wrong, which is named by its line.
    """
    rows = read_rows(table, kind, splitting)
    if all(not split for split, _ in rows):
        return draw_splits([item for _, item in rows], splitting)
    splits: dict[str, list[Item]] = {}
    for name, item in rows:
        splits.setdefault(name, []).append(item)
    if "train" not in splits:
        raise UserError(f"{table}: no row has split 'train'; only normal images belong there.")
    return splits if "val" in splits else with_val(splits, splitting)


def read_rows(table: Path, kind: Kind, splitting: Splitting) -> list[tuple[str, Item]]:
    """The items of a CSV file, each with its split, "" where there is no such column.

    Columns: `path` and `label` (0 normal, 1 anomalous, or names of classes with
    `config.data.normal_classes`; empty where the mask of a scan tells); optional `group` (the
    patient), `mask`, `id` and `split`. Paths are relative to the file's folder and stay in it.

    Raises:
        UserError: the file cannot be read, or a row is wrong, which is named by its line.
    """
    rows = _read(table)
    lacking = [line for line, row in rows if not row.get("group")]
    if 0 < len(lacking) < len(rows):
        raise UserError(
            f"{table} line {lacking[0]}: has no group, others have one; name the patient of every "
            "row or of none."
        )
    _check_spellings(table, rows, splitting)
    items: list[tuple[str, Item]] = []
    seen: dict[str, int] = {}
    files: dict[str, int] = {}
    for line, row in rows:
        item = _item(table, line, row, kind, splitting)
        if item.id in seen:
            raise UserError(
                f"{table} line {line}: '{item.id}' is in line {seen[item.id]} already; give every "
                "image its own id and one row."
            )
        path = str(item.paths[0])
        if path in files:
            raise UserError(
                f"{table} line {line}: '{path}' is in line {files[path]} already; give every file "
                "one row."
            )
        seen[item.id] = files[path] = line
        items.append((_split(table, line, row), item))
    _check_masks(table, [item for _, item in items], kind)
    return items


def files_listed(table: Path) -> list[Path]:
    """The images or scans that a CSV file lists, whatever else is in its rows.

    Raises:
        UserError: the file cannot be read, or a row names no file below its folder.
    """
    return [_inside(table, line, row["path"] or "")[0] for line, row in _read(table)]


_Row = Mapping[Any, Any]


def _read(table: Path) -> list[tuple[int, _Row]]:
    """The rows of a table with their lines, its columns by their names in small letters."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = [folded(column) for column in columns]
            _check_columns(table, columns)
            rows: list[tuple[int, _Row]] = [(reader.line_num, _stripped(row)) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{table}: not a readable CSV file ({error}); write it in UTF-8 with a head line."
        ) from error
    if not rows:
        raise UserError(f"{table}: has no rows; add one for each image.")
    return rows


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    by_name: dict[str, str] = {}
    for column in columns:
        if folded(column) in by_name:
            raise UserError(
                f"{table}: the columns '{by_name[folded(column)]}' and '{column}' have one name "
                "(letter case does not count); rename or remove one of them."
            )
        by_name[folded(column)] = column
    for needed in ("path", "label"):
        if needed not in by_name:
            there = ", ".join(map(repr, columns)) or "none"
            raise UserError(
                f"{table}: has no column '{needed}', but {there}; "
                "its head line is to name path, label and optionally "
                f"{', '.join(_COLUMNS[2:])}, with commas between."
            )
    strange = [column for name, column in by_name.items() if name not in _COLUMNS]
    if strange:
        raise UserError(
            f"{table}: column '{strange[0]}' is none of {', '.join(_COLUMNS)}; rename or remove it."
        )


def _check_spellings(table: Path, rows: Sequence[tuple[int, _Row]], splitting: Splitting) -> None:
    """Raises a UserError where a normal class, or a split, is written in two ways."""
    for column in ("label", "split"):
        first: dict[str, tuple[str, int]] = {}
        for line, row in rows:
            text = row.get(column) or ""
            other, where = first.setdefault(folded(text), (text, line))
            # What config.data.normal_classes has in two spellings is known in both.
            if other != text and not {other, text} <= set(splitting.normal_classes):
                raise UserError(
                    f"{table} line {line}: {column} '{text}' is '{other}' in line {where}; write "
                    "one word in one way."
                )


def _check_masks(table: Path, items: Sequence[Item], kind: Kind) -> None:
    """Raises a UserError where the image of a row is a mask."""
    remedy = "name it in the column mask of its image, or remove its row"
    by_mask = {item.mask: item for item in items if item.mask is not None}
    for item in items:
        marked = by_mask.get(item.paths[0])
        if marked is not None:
            raise UserError(
                f"{table}: '{item.id}' is the mask of '{marked.id}', and an image of its own; "
                "remove its row, or name another mask."
            )
    paths = [path for item in items for path in item.paths]
    refuse_masks(paths, kind, table.parent.absolute(), remedy)


def _stripped(row: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: text.strip() if isinstance(text, str) else text for key, text in row.items()}


def _item(
    table: Path, line: int, row: Mapping[str | None, str | None], kind: Kind, splitting: Splitting
) -> Item:
    if None in row:
        raise UserError(f"{table} line {line}: has more fields than the head line; quote commas.")
    path, place = _inside(table, line, row["path"] or "")
    mask = row.get("mask") or ""
    group = row.get("group") or splitting.patient_of(path, place)
    return Item(
        id=row.get("id") or place,
        group=group,
        paths=(path,),
        label=_label(table, line, (row["label"] or "").strip(), bool(mask), kind, splitting),
        mask=_inside(table, line, mask)[0] if mask else None,
        is_unnamed=group == place,
    )


def _inside(table: Path, line: int, text: str) -> tuple[Path, str]:
    """A path of the table, and what it is below the table's folder."""
    if not text or "\0" in text:
        raise UserError(f"{table} line {line}: has no path; name the file.")
    root = table.parent.absolute()
    path = Path(os.path.normpath(root / text))
    if not path.is_relative_to(root):
        raise UserError(
            f"{table} line {line}: '{text}' is outside of the table's folder; move the table or "
            "the file."
        )
    place = path.relative_to(root)
    if any(map(is_hidden, place.parts)):
        raise UserError(
            f"{table} line {line}: '{text}' is hidden, as what systems leave beside files is; name "
            "another file, or rename it."
        )
    return path, place.as_posix()


def _label(
    table: Path, line: int, text: str, has_mask: bool, kind: Kind, splitting: Splitting
) -> int | None:
    if not text and has_mask and kind != "image":
        return None
    if splitting.normal_classes:
        if not text:
            raise UserError(f"{table} line {line}: has no label; name the class.")
        label = int(not splitting.is_normal(text))
    elif text in ("0", "1"):
        label = int(text)
    else:
        raise UserError(
            f"{table} line {line}: label '{text}' is neither 0 (normal) nor 1 (anomalous); write "
            "these, or list the normal classes in config.data.normal_classes."
        )
    # A scan's mask tells which of its slices are anomalous.
    return None if label and has_mask and kind != "image" else label


def _split(table: Path, line: int, row: Mapping[str | None, str | None]) -> str:
    if "split" not in row:
        return ""
    name = split_of(row["split"] or "")
    if not name:
        meant = split_suggested(row["split"] or "")
        hint = f" Write '{meant}' for it." if meant else ""
        raise UserError(
            f"{table} line {line}: split '{row['split'] or ''}' is none of train, val, test and "
            f"test_<name>.{hint}"
        )
    return name
