"""Join the results of one suite that ran apart, such as on machines without a common disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossvox.benchmark.results.files import CELL_COLUMNS, holds_benchmark, read_about, write_table
from crossvox.benchmark.results.scores import CASE_COLUMNS, Line
from crossvox.errors import UsageError
from crossvox.evaluation.scores import group_rows
from crossvox.utils.csv_tables import read_table
from crossvox.utils.files import atomic_write

SHARED = ("name", "preset", "split", "checkpoint", "label_draw", "settings", "start")
"""Facts in `suite.json` without which numbers do not belong into one table."""

RUN = ("data", "labels", "steps", "backbone", "row", "seed")
"""Columns that tell a run from all others."""


@dataclass(frozen=True)
class _Part:
    """The files of one folder: `suite.json`, and the lines of each run in the other two."""

    folder: Path
    about: Mapping[str, Any]
    cells: Mapping[tuple[str, ...], Line]
    cases: Mapping[tuple[str, ...], Sequence[Line]]


def merge_results(folders: Sequence[Path], into: Path) -> None:
    """Add the results in some folders to those in another one, which may be new.

    Of a run that several folders have, the last that finished it counts. Rows keep the order in
    which the folders name them.

    Args:
        folders: of benchmarks.
        into: gets `suite.json`, `cases.csv` and `cells.csv`.

    Raises:
        UsageError: a folder holds no benchmark, or one of other settings.
        DataError: a file is damaged.
    """
    parts = [_read(folder) for folder in ([into] if holds_benchmark(into) else []) + [*folders]]
    about = _joined([(part.folder, part.about) for part in parts])
    found: dict[tuple[str, ...], _Part] = {}
    for part in parts:
        for run, cell in part.cells.items():
            if run not in found or cell["state"] == "done":
                found[run] = part
    runs = _sorted(found, list(about["rows"]))
    cases = [line for run in runs for line in found[run].cases.get(run, ())]
    write_table(into / "cases.csv", CASE_COLUMNS, cases)
    write_table(into / "cells.csv", CELL_COLUMNS, [found[run].cells[run] for run in runs])
    atomic_write(into / "suite.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _read(folder: Path) -> _Part:
    about = read_about(folder)
    cells = group_rows(read_table(folder / "cells.csv", CELL_COLUMNS), *RUN)
    cases = group_rows(read_table(folder / "cases.csv", CASE_COLUMNS), *RUN)
    return _Part(folder, about, {run: lines[-1] for run, lines in cells.items()}, cases)


def _joined(abouts: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the facts of all parts as those of one suite."""
    first, one = abouts[0]
    joined = {**one, "rows": {}, "seeds": [], "fewer_seeds": {}}
    for folder, about in abouts:
        rows = about["rows"]
        facts = [(key, one[key], about[key]) for key in SHARED]
        facts += [(f"row {x}", own, rows[x]) for x, own in joined["rows"].items() if x in rows]
        for name, here, there in facts:
            if here != there:
                raise UsageError(
                    f"{folder} and {first} differ in {name}: {there} and {here}; join the "
                    "results of one suite"
                )
        joined["rows"] |= rows
        joined["seeds"] = sorted({*joined["seeds"], *about["seeds"]})
        joined["fewer_seeds"] |= about["fewer_seeds"]
    return joined


def _sorted(runs: Iterable[tuple[str, ...]], rows: list[str]) -> list[tuple[str, ...]]:
    """Return runs by data set and label count as they first occur, steps, row and seed."""
    runs = list(runs)
    sets, labels = ([*dict.fromkeys(run[i] for run in runs)] for i in (0, 1))

    def place(run: tuple[str, ...]) -> tuple[int, ...]:
        data, count, steps, _, row, seed = run
        where = sets.index(data), labels.index(count), int(steps or 0)
        return (*where, rows.index(row), int(seed))

    return sorted(runs, key=place)
