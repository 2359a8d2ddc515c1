"""A list that says which cases there are, in which order and in which split."""

from __future__ import annotations

import csv
from pathlib import Path

from crossvox.data.manifest import SPLITS
from crossvox.errors import DataError


def read_list(path: Path) -> dict[str, str]:
    """Case id → split of a text file with a line `case,split` (or with a tab) for each case.

    A first line `case,split`, empty lines and lines that begin with # are passed over. Without a
    second column a case is for training.

    Raises:
        DataError: the file cannot be read, or a line says something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: unreadable ({error}); expected a UTF-8 text file") from error
    split_of: dict[str, str] = {}
    separator = "\t" if "\t" in text else ","
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=separator), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or cells[:2] == ["case", "split"]:
            continue
        case, split = cells[0], (cells[1] if len(cells) > 1 else "") or "train"
        if split not in SPLITS:
            raise DataError(
                f"{path}, line {number}: split {split!r}; expected case,split with one of "
                f"{', '.join(SPLITS)}"
            )
        if case in split_of:
            raise DataError(f"{path}, line {number}: case {case!r} again; name each case once")
        split_of[case] = split
    if not split_of:
        raise DataError(f"{path}: names no case; expected lines such as p01,train")
    return split_of
