"""CSV files as spreadsheets and pandas write them."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from jaxad.data.files.names import folded

#: Delimiters of fields -> their names. Spreadsheets use semicolons where the comma is the decimal
#: separator.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

#: A first line by which spreadsheets name the delimiter.
_DELIMITER_LINE = re.compile(r'\s*?"?sep=([^\w\r\n" ])"?[ \t]*(?:\r\n?|\n|$)', re.IGNORECASE)

#: What a line that is not blank has; blank lines of spreadsheets consist of delimiters.
_TEXT = re.compile(r"[^\s,;]")

#: Name that pandas gives to a column without a name, such as its own index.
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")


def parse(text: str) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Parses the text of a CSV file.

    The delimiter is the one that a line `sep=;` names, or else one by which the header line has a
    column `path`; failing this, the one that gives it the most columns.

    Returns:
        The names of the columns, "" for those without one; the lines below that are not blank, each
        with its number; and the delimiter. No columns if all lines are blank.

    Raises:
        csv.Error: the file is not CSV by any delimiter.
    """
    delimiters: Sequence[str] = tuple(DELIMITERS)
    if first := _DELIMITER_LINE.match(text):
        delimiters = (first[1],)
        # Blank lines in its place keep the numbers of the others.
        text = "\n" * len(first[0].splitlines()) + text[first.end() :]
    headers: dict[str, list[str]] = {}
    errors: list[csv.Error] = []
    for delimiter in delimiters:
        try:
            lines = _lines(text, delimiter)
            headers[delimiter] = [cell.strip() for cell in next(lines, (0, []))[1]]
        except csv.Error as error:
            errors.append(error)
    if not headers:
        raise errors[0]
    best = max(headers, key=lambda key: ("path" in map(folded, headers[key]), len(headers[key])))
    columns = ["" if _UNNAMED.fullmatch(name) else name for name in headers[best]]
    return columns, [*_lines(text, best)][1:], best


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the cells of each line that is not blank, with the line's number."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    return ((reader.line_num, cells) for cells in reader if any(map(_TEXT.search, cells)))
