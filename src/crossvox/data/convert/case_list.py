"""Read which case is in which split from a text file, as people and spreadsheets write it."""

from __future__ import annotations

import codecs
import csv
import re
from pathlib import Path

from crossvox.data.manifest import SPLITS
from crossvox.errors import DataError

SEPARATORS = ("\t", ";", ",", "|")
"""What may stand between the cells."""
CASE = {
    *("case", "cases", "caseid", "id", "name", "subject", "subjectid", "patient", "patientid"),
    *("participant", "participantid", "scan", "scanid", "image", "file", "filename"),
}
SPLIT = {"split", "set", "subset", "partition"}
"""Titles of the two columns, in small letters without spaces, hyphens and underscores."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_list(path: Path) -> dict[str, str]:
    """Read a text file with a line `case,split` for each case.

    Between the two may stand a comma, a semicolon, a tab or a bar. A first line of titles may give
    the columns another order. Empty lines and lines that begin with # are skipped. Splits may be
    in capitals. A case without a split is for training.

    Returns:
        Case id → split.

    Raises:
        DataError: the file cannot be read, or a line is wrong.
    """
    lines = [(n, line) for n, line in enumerate(_text(path).splitlines(), start=1) if _counts(line)]
    first = lines[0][1] if lines else ""
    separator = _separator(first)
    rows = [
        (
            number,
            [
                cell.strip()
                for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))
            ],
        )
        for number, line in lines
    ]
    case_at, split_at = 0, 1
    if rows and (places := _titles(rows[0][1])):
        (case_at, split_at), rows = places, rows[1:]
    split_of: dict[str, str] = {}
    for number, cells in rows:
        case = cells[case_at] if len(cells) > case_at else ""
        if not case:
            if any(cells):
                raise DataError(f"{path}, line {number}: names no case; expected case,split")
            continue
        given = (cells[split_at] if len(cells) > split_at else "") or "train"
        split = given.lower()
        if split not in SPLITS:
            is_first = split_of == {} and rows[0][0] == number == lines[0][0]
            titles = "; if these are titles, name the columns case and split" if is_first else ""
            raise DataError(
                f"{path}, line {number}: split {given!r}; expected case,split with one of "
                f"{', '.join(SPLITS)}{titles}"
            )
        if case in split_of:
            raise DataError(f"{path}, line {number}: case {case!r} again; name each case once")
        split_of[case] = split
    if not split_of:
        raise DataError(f"{path}: names no case; expected lines such as p01,train")
    return split_of


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: unreadable ({error}); expected a UTF-8 text file") from error


def _separator(line: str) -> str:
    """Return what sets a split or its title apart in a line, since names of cases hold anything."""
    there = [separator for separator in SEPARATORS if separator in line]
    for separator in there:
        if {cell.strip(' "').lower() for cell in line.split(separator)} & {*SPLITS, *SPLIT}:
            return separator
    return there[0] if there else ","


def _counts(line: str) -> bool:
    """Return whether a line is not empty, no comment and no note of a spreadsheet's separator."""
    return bool(line.strip()) and not line.lstrip().startswith("#") and line[:4].lower() != "sep="


def _titles(cells: list[str]) -> tuple[int, int] | None:
    """Return the places of case and split if the cells are titles."""
    names = [re.sub(r"[\s_-]", "", cell.lower()) for cell in cells]
    split_at = next((k for k, name in enumerate(names) if name in SPLIT), None)
    case_at = next((k for k, name in enumerate(names) if name in CASE), None)
    if names == ["case"]:
        return 0, 1
    return None if case_at is None or split_at is None else (case_at, split_at)
