"""CSV text that reads back exactly, whatever characters its cells hold."""

import csv
import io
from collections.abc import Iterable
from typing import Any


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    r"""Formats rows as CSV; lines end in `\n`, and every cell with a line break is quoted.

    `csv.writer` quotes only the line breaks of its own line ending: with `\n`, a cell that holds
    `\r` would end its row when it is read.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")
    lines = []
    for row in rows:
        writer.writerow(row)
        lines.append(file.getvalue().removesuffix("\r\n") + "\n")
        file.seek(0)
        file.truncate()
    return "".join(lines)
