"""Write and read CSV tables: lines end in a line feed, an empty cell is a missing value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from crossvox.errors import DataError


def csv_text(*rows: Iterable[object]) -> str:
    r"""Return rows as the text of a CSV file; None and NaN become empty cells.

    >>> csv_text(("case", "dice"), ("a", 0.5), ("b", float("nan")))
    'case,dice\na,0.5\nb,\n'
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows(["" if v is None or v != v else v for v in row] for row in rows)
    return text.getvalue()


def read_own_table(path: Path, columns: Sequence[str], holds: str) -> list[dict[str, str]]:
    """Return the rows of a table with exactly these columns; none if there is no such file.

    Args:
        path: of the table.
        columns: its header.
        holds: contents of such a table, in words for the message.

    Raises:
        DataError: the file is another table.
    """
    if not path.exists():
        return []
    head, rows = _read(path, holds)
    if head != list(columns):
        raise DataError(f"{path}: not a table of {holds}; move it away or give another --out")
    return rows


def read_table(path: Path | str, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a table of scores as text, by column.

    Raises:
        DataError: the file cannot be read, or lacks a column of `needed`.
    """
    head, rows = _read(path, "scores")
    if missing := [name for name in needed if name not in head]:
        raise DataError(f"{path}: no column {', '.join(missing)}; is it the right file?")
    return rows


def _read(path: Path | str, holds: str) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table of {holds} ({error})") from error
