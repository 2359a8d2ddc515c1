"""The JSON file of all rows measured so far, which a later call goes on with."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PARTS = {
    "steps": ("preset", "method"),
    "networks": ("preset", "network"),
    "memory": ("preset", "method"),
    "scored": ("set", "method"),
}
"""Part → the entries that name its rows."""


@dataclass(frozen=True)
class Row:
    """A row that is to be measured.

    Attributes:
        part: of the file.
        names: values of the entries that name the row.
        work: measures it; returns the other entries too.
        seconds: that the work lasts at least.
    """

    part: str
    names: tuple[str, ...]
    work: Callable[[], dict[str, Any]]
    seconds: float = 0.0


class Record:
    """Rows in a file, which is whole after each of them.

    Args:
        file: continued if it exists.
        about: machine, commit and settings of the measurement.

    Raises:
        SystemExit: the file's rows were measured elsewhere, or with other settings.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file = file
        self.found: dict[str, Any] = {**about, **{part: [] for part in PARTS}}
        if file.exists():
            self.found = json.loads(file.read_text(encoding="utf-8"))
            theirs, ours = _setting(self.found), _setting(about)
            for key in (k for k in ours if ours[k] != theirs[k]):
                raise SystemExit(
                    f"{file} has rows with {key} {theirs[key]}, but now it is {ours[key]}; "
                    "go on as it began, or give another --out"
                )

    def measure(self, rows: Sequence[Row], limit: float) -> int:
        """Measure what is missing, then again what failed; return how many rows are left.

        Args:
            rows: all of the table.
            limit: seconds after which no row is begun, nor one that would last longer.
        """
        began = time.perf_counter()
        missing = [row for row in rows if row.names not in self._names(row.part, failed=None)]
        failed = [row for row in rows if row.names in self._names(row.part, failed=True)]
        todo = missing + failed
        for i, row in enumerate(todo):
            if time.perf_counter() - began + row.seconds > limit:
                return len(todo) - i
            self._write(row, _attempt(row))
        return 0

    def _names(self, part: str, failed: bool | None) -> set[tuple[str, ...]]:
        """Return the names of the rows that are there: all, those that failed, or the others."""
        rows = [r for r in self.found[part] if failed is None or ("error" in r) == failed]
        return {tuple(row[key] for key in PARTS[part]) for row in rows}

    def _write(self, row: Row, entries: dict[str, Any]) -> None:
        keys = PARTS[row.part]
        others = [r for r in self.found[row.part] if tuple(r[k] for k in keys) != row.names]
        named = dict(zip(keys, row.names, strict=True)) | entries
        self.found[row.part] = [*others, named]
        partial = self.file.with_name(f"{self.file.name}.partial")
        partial.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        partial.replace(self.file)
        print(row.part, *map(_short, list(named.values())[:5]), flush=True)


def _attempt(row: Row) -> dict[str, Any]:
    """Return the row's entries, or the error that it ended with."""
    try:
        return row.work()
    except Exception as error:  # whatever fails, the other rows are measured
        lines = str(error).strip().splitlines()
        entries = {"error": ": ".join([type(error).__name__, *lines[:1]])}
    # Only here the error's frames are gone, and with them what they held on the card.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return entries


def _setting(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal in all rows of a file."""
    machine = about["machine"]
    return {
        "card": machine["card"],
        "versions": machine["versions"],
        "commit": about["commit"].partition(" ")[0],
        "tiny": about["tiny"],
        "steps": about["count"],
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
