"""Join the results of one suite that ran apart, such as on machines without a common disk."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossvox.benchmark.results.files import CELL_COLUMNS, RUN, damaged, read_results, write_table
from crossvox.benchmark.results.scores import CASE_COLUMNS, Line
from crossvox.errors import UsageError
from crossvox.evaluation.scores import group_rows
from crossvox.utils.csv_tables import read_table
from crossvox.utils.files import atomic_write

FILES = ("suite.json", "cases.csv", "cells.csv")

SHARED = ("name", "preset", "split", "checkpoint", "label_draw", "settings", "start")
"""Facts in `suite.json` without which numbers do not belong into one table."""

STATES = ("open", "failed", "done")
"""States of a run; a later one says more."""

Run = tuple[str, ...]
"""Values of `RUN`."""


@dataclass(frozen=True)
class _Part:
    """The files of one folder: `suite.json`, and the lines of each run in the other two."""

    folder: Path
    about: Mapping[str, Any]
    cells: Mapping[Run, Line]
    cases: Mapping[Run, Sequence[Line]]


def merge_results(folders: Sequence[Path], into: Path) -> None:
    """Add the results in some folders to those in another one, which may be new.

    Of a run that several have finished, that of the folder named last counts; those in `into` come
    first. So do its title, its reference and the order of its rows.

    Args:
        folders: of benchmarks.
        into: gets `suite.json`, `cases.csv` and `cells.csv`.

    Raises:
        UsageError: a folder holds no benchmark, or one of other settings or scans; or a benchmark
            runs in `into`.
        DataError: a file is damaged.
    """
    if (into / "cells").exists():
        raise UsageError(
            f"--merge {into}: a benchmark runs there, and would write over what is added; give a "
            "folder of its own"
        )
    there = [into] if any((into / name).exists() for name in FILES) else []
    parts = [_read(folder) for folder in [*there, *folders]]
    _require_same_scans(parts)
    found: dict[Run, _Part] = {}
    for part in parts:
        for run, cell in part.cells.items():
            if run not in found or _rank(cell) >= _rank(found[run].cells[run]):
                found[run] = part
    about = _joined(parts, found)
    runs = _sorted(found, list(about["rows"]))
    cases = [line for run in runs for line in found[run].cases.get(run, ())]
    write_table(into / "cases.csv", CASE_COLUMNS, cases)
    write_table(into / "cells.csv", CELL_COLUMNS, [found[run].cells[run] for run in runs])
    atomic_write(into / "suite.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _read(folder: Path) -> _Part:
    about = read_results(folder).about  # refuses numbers that are none
    cells = group_rows(read_table(folder / "cells.csv", CELL_COLUMNS), *RUN)
    cases = group_rows(read_table(folder / "cases.csv", CASE_COLUMNS), *RUN)
    part = _Part(folder, about, {run: lines[-1] for run, lines in cells.items()}, cases)
    for run, cell in part.cells.items():
        named = dict(zip(RUN, run, strict=True))
        numbers = (named["steps"] or "0", named["seed"])
        known = named["row"] in about["rows"] and all(map(str.isdecimal, numbers))
        if not known or cell["state"] not in STATES:
            raise damaged(folder, f"cells.csv names an unknown run: {', '.join(run)}")
        if cell["state"] == "done" and run not in cases:
            raise damaged(folder, f"no scores of {', '.join(run)}")
    return part


def _rank(cell: Line) -> int:
    return STATES.index(cell["state"])


def _require_same_scans(parts: Sequence[_Part]) -> None:
    """Raise `UsageError` if a data set was scored on other cases in one folder than in another."""
    scored: dict[str, tuple[Path, set[str]]] = {}
    for part in parts:
        lines = [line for run in part.cases.values() for line in run]
        for (data,), own in group_rows(lines, "data").items():
            cases = {line["case"] for line in own}
            first, others = scored.setdefault(data, (part.folder, cases))
            if odd := sorted(cases ^ others):
                raise UsageError(
                    f"{part.folder} and {first} were not scored on the same cases of {data}: only "
                    f"one has {', '.join(odd[:3])}; join the results of one split"
                )


def _joined(parts: Sequence[_Part], runs: Collection[Run]) -> dict[str, Any]:
    """Return the facts of all parts as those of one suite."""
    first = parts[0]
    rows: dict[str, Any] = {}
    for part in parts:
        own = part.about["rows"]
        facts = [(key, first.about[key], part.about[key]) for key in SHARED]
        facts += [(f"row {label}", rows[label], own[label]) for label in rows if label in own]
        for name, here, there in facts:
            if here != there:
                raise UsageError(
                    f"{part.folder} and {first.folder} differ in {name}: {there} and {here}; join "
                    "the results of one suite"
                )
        rows |= own
    lengths: dict[str, set[int]] = {}
    for _, _, steps, _, _, seed in runs:
        lengths.setdefault(steps, set()).add(int(seed))
    if "" in lengths and len(lengths) > 1:
        raise UsageError("some runs have --steps of their own and some the suite's; join one kind")
    seeds = sorted(set().union(*lengths.values()))
    fewer = {steps: sorted(own) for steps, own in lengths.items() if sorted(own) != seeds}
    return {**first.about, "rows": rows, "seeds": seeds, "fewer_seeds": fewer}


def _sorted(runs: Collection[Run], rows: list[str]) -> list[Run]:
    """Return runs by data set and label count as they first occur, steps, row and seed."""
    sets, labels = ([*dict.fromkeys(run[i] for run in runs)] for i in (0, 1))

    def place(run: Run) -> tuple[int, ...]:
        data, count, steps, _, row, seed = run
        where = sets.index(data), labels.index(count), int(steps or 0)
        return (*where, rows.index(row), int(seed))

    return sorted(runs, key=place)
