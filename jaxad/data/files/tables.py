"""Data sets that are a CSV file with one row per image or scan."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Item
from jaxad.data.files.mask_search import refuse_masks
from jaxad.data.files.names import folded, spelling_of, split_of, split_suggested
from jaxad.data.files.splitting import Splitting, draw_splits, with_val
from jaxad.data.readers.checks import is_hidden
from jaxad.errors import UserError

_COLUMNS = ("path", "label", "group", "mask", "id", "split")


def read_table(table: Path, kind: Kind, splitting: Splitting) -> dict[str, list[Item]]:
    """Lists the items of a CSV file by split; see `read_rows`.

    The column `split` has `train`, `val`, `test` or `test_<name>`. Without it, patients with an
    anomaly go to `test`, and the others are drawn at random.

    Raises:
        UserError: see `read_rows`; or no row has the split `train`.
    """
    rows = read_rows(table, kind, splitting)
    if all(not split for split, _ in rows):
        return draw_splits([item for _, item in rows], splitting)
    splits: dict[str, list[Item]] = {}
    for name, item in rows:
        splits.setdefault(name, []).append(item)
    if "train" not in splits:
        raise UserError(f"{table}: no row has split 'train'; add normal images with this split.")
    return splits if "val" in splits else with_val(splits, splitting)


def read_rows(table: Path, kind: Kind, splitting: Splitting) -> list[tuple[str, Item]]:
    """Lists the items of a CSV file, each with its split, or "" if the file has no column `split`.

    Columns: `path` and `label` (0 for normal, 1 for anomalous, or names of classes with
    `config.data.normal_classes`; empty if the mask of a scan labels its slices); optionally `group`
    (the patient), `mask`, `id` and `split`. Paths are relative to the folder of the table and must
    not lead out of it.

    Raises:
        UserError: the file cannot be read, or a row is wrong; the message gives its line.
    """
    rows = _read(table)
    without_group = [line for line, row in rows if not row.get("group")]
    if 0 < len(without_group) < len(rows):
        raise UserError(
            f"{table} line {without_group[0]}: has no group, while others have one; name the "
            "patient of every row or of none."
        )
    _check_spellings(table, rows, splitting)
    items: list[tuple[str, Item]] = []
    line_of_id: dict[str, int] = {}
    line_of_file: dict[Path, int] = {}
    for line, row in rows:
        where = f"{table} line {line}"
        item = _item(table, where, row, kind, splitting)
        path = item.paths[0]
        if item.id in line_of_id:
            raise UserError(
                f"{where}: '{item.id}' is already on line {line_of_id[item.id]}; give every image "
                "its own id and one row."
            )
        if path in line_of_file:
            raise UserError(
                f"{where}: '{path}' is already on line {line_of_file[path]}; give every file one "
                "row."
            )
        line_of_id[item.id] = line_of_file[path] = line
        items.append((_split(where, row), item))
    _refuse_masks(table, [item for _, item in items], kind)
    return items


def files_listed(table: Path) -> list[Path]:
    """Returns the images or scans that a CSV file lists; other columns are not checked.

    Raises:
        UserError: the file cannot be read, or a row names no file below its folder.
    """
    return [
        _resolve(table, f"{table} line {line}", row["path"] or "")[0] for line, row in _read(table)
    ]


#: Texts by column in lower case; `None` holds fields beyond the header.
_Row = Mapping[Any, Any]


def _read(table: Path) -> list[tuple[int, _Row]]:
    """Returns the rows of a table with their line numbers."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            _check_needed(table, columns)
            reader.fieldnames = [*spelling_of(columns, _COLUMNS, str(table), "column")]
            rows: list[tuple[int, _Row]] = []
            for row in reader:
                stripped = {k: v.strip() if isinstance(v, str) else v for k, v in row.items()}
                rows.append((reader.line_num, stripped))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{table}: not a readable CSV file ({error}); write it in UTF-8 with a header line."
        ) from error
    if not rows:
        raise UserError(f"{table}: has no rows; add one for each image.")
    return rows


def _check_needed(table: Path, columns: Sequence[str]) -> None:
    for needed in ("path", "label"):
        if needed not in map(folded, columns):
            listed = ", ".join(map(repr, columns)) or "none"
            raise UserError(
                f"{table}: has no column '{needed}', but {listed}; write a header line with path, "
                f"label and optionally {', '.join(_COLUMNS[2:])}, separated by commas."
            )


def _check_spellings(table: Path, rows: Sequence[tuple[int, _Row]], splitting: Splitting) -> None:
    """Raises a UserError if a class or a split has two spellings."""
    for column in ("label", "split"):
        first: dict[str, tuple[str, int]] = {}
        for line, row in rows:
            text = row.get(column) or ""
            other, other_line = first.setdefault(folded(text), (text, line))
            # `config.data.normal_classes` may list both spellings.
            if other != text and not {other, text} <= set(splitting.normal_classes):
                raise UserError(
                    f"{table} line {line}: {column} '{text}' is spelt '{other}' on line "
                    f"{other_line}; use one spelling."
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
    refuse_masks(paths, kind, table.parent.absolute(), remedy)


def _item(table: Path, where: str, row: _Row, kind: Kind, splitting: Splitting) -> Item:
    if None in row:
        raise UserError(f"{where}: has more fields than the header line; quote commas.")
    path, place = _resolve(table, where, row["path"] or "")
    mask = row.get("mask") or ""
    group = row.get("group") or splitting.patient_of(path, place)
    return Item(
        id=row.get("id") or place,
        group=group,
        paths=(path,),
        label=_label(where, row["label"] or "", bool(mask), kind, splitting),
        mask=_resolve(table, where, mask)[0] if mask else None,
        is_unnamed=group == place,
    )


def _resolve(table: Path, where: str, text: str) -> tuple[Path, str]:
    """Returns the path that a row names, absolute and below the folder of the table."""
    if not text or "\0" in text:
        raise UserError(f"{where}: has no path; name the file.")
    root = table.parent.absolute()
    path = Path(os.path.normpath(root / text))
    if not path.is_relative_to(root):
        raise UserError(
            f"{where}: '{text}' is outside the table's folder; move the table or the file."
        )
    place = path.relative_to(root)
    if any(map(is_hidden, place.parts)):
        raise UserError(
            f"{where}: '{text}' is a hidden file, probably made by the operating system; name "
            "another file, or rename it."
        )
    return path, place.as_posix()


def _label(where: str, text: str, has_mask: bool, kind: Kind, splitting: Splitting) -> int | None:
    # The mask of a scan tells which of its slices are anomalous.
    is_by_slice = has_mask and kind != "image"
    if not text and is_by_slice:
        return None
    if splitting.normal_classes:
        if not text:
            raise UserError(f"{where}: has no label; name the class.")
        label = int(not splitting.is_normal(text))
    elif text in ("0", "1"):
        label = int(text)
    else:
        raise UserError(
            f"{where}: label '{text}' is neither 0 (normal) nor 1 (anomalous); write 0 or 1, or "
            "list the normal classes in config.data.normal_classes."
        )
    return None if label and is_by_slice else label


def _split(where: str, row: _Row) -> str:
    if "split" not in row:
        return ""
    text = row["split"] or ""
    name = split_of(text)
    if not name:
        suggested = split_suggested(text)
        hint = f" Write '{suggested}' for it." if suggested else ""
        raise UserError(f"{where}: split '{text}' is not train, val, test or test_<name>.{hint}")
    return name
