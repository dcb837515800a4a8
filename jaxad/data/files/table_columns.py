"""The columns of a table: which are missing, and which may be these by other names."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from jaxad.data.files.names import are_splits, column_meant, folded
from jaxad.errors import UserError


def check_columns(
    table: Path,
    texts: Mapping[str, Sequence[str]],
    spelling: Collection[str],
    known: Sequence[str],
    needed: Sequence[str],
) -> None:
    """Raises a UserError that names all missing columns that are needed or may be misnamed.

    `texts` are the texts of each column that has a name.
    """
    absent = [name for name in known if name not in spelling]
    misnamed: dict[str, str] = {}  # column that is absent -> column that it may be
    for name in (name for name in texts if folded(name) not in known):
        remaining = [column for column in absent if column not in misnamed]
        if column := column_meant(name, remaining):
            misnamed[column] = name
        elif (
            "split" in remaining
            and not folded(name).startswith("extra_")
            and are_splits(texts[name])
        ):
            misnamed["split"] = name
    missing = [column for column in absent if column in needed or column in misnamed]
    if not missing:
        return
    remedies = [
        f"rename '{misnamed[column]}' to '{column}'" if column in misnamed else f"add '{column}'"
        for column in missing
    ]
    is_unusable = bool(set(missing) & set(needed))
    columns = f", but {', '.join(map(repr, texts)) or 'none'}" if is_unusable else ""
    message = (
        f"{table}: has no column {_join(map(repr, missing), 'or')}{columns}; "
        f"{_join(remedies, 'and')}."
    )
    extra = [f"'extra_{misnamed[column]}'" for column in missing if column not in needed]
    if extra:
        message += f" Or, for columns of something else, choose the names {_join(extra, 'and')}."
    if is_unusable:
        optional = ", ".join(name for name in known if name not in needed)
        message += (
            f" The header line has {' and '.join(needed)}"
            f"{f', optionally {optional}' if optional else ''}; commas, semicolons or tabs "
            "separate columns."
        )
    raise UserError(message)


def _join(texts: Iterable[str], word: str) -> str:
    """Returns `a, b and c`."""
    *others, last = texts
    return f"{', '.join(others)} {word} {last}" if others else last


# --- Rows.
