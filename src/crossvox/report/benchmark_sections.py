"""What the folder of a benchmark has to tell in a report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossvox.errors import DataError
from crossvox.evaluation.scores import DECIMALS, Summary, read_table, summarise
from crossvox.report.page import Cell, Plots, Section, Table
from crossvox.report.score_blocks import (
    TITLES,
    count,
    grouped,
    plain_table,
    score_plots,
    spread_cell,
)

CASES, CELLS = "cases.csv", "cells.csv"

GROUP = ("data", "labels", "backbone", "variant")
"""What the rows of one table share."""

NUMBERS = ("dice", "assd_mm", "n_missed", "n_false", "n_both_empty")
NEEDED = (*GROUP, "row", "seed", "case", "modality", "class", *NUMBERS)

Row = Mapping[str, Any]


def holds_benchmark(path: Path) -> bool:
    """Whether a folder is that of a benchmark."""
    return (path / CELLS).exists()


def benchmark_sections(path: Path) -> list[Section]:
    """Tables and plots of each data set and condition, and what each run of the grid took.

    Raises:
        DataError: a file cannot be read or lacks columns.
    """
    rows = read_table(path / CASES, NEEDED) if (path / CASES).exists() else []
    for number, row in enumerate(rows, start=2):
        row.update(_numbers(row, f"{path / CASES}, line {number}"))
    cells = read_table(path / CELLS, ("row", "state"))
    sections = []
    for group, own in grouped(rows, *GROUP).items():
        names = zip(GROUP, group, strict=True)
        title = ", ".join(f"{name} {value}" for name, value in names if value not in ("", "-"))
        sections.append(Section(title, _group_blocks(own)))
    if not rows:
        sections.append(Section("Scores", [], "No cell of the grid has been scored yet."))
    failed = [cell for cell in cells if cell["state"] not in ("done", "")]
    if failed:
        text = "These are in none of the tables."
        sections.insert(0, Section(f"Cells without a result: {len(failed)}",
                                   [plain_table("", failed)], text))  # fmt: skip
    return [*sections, Section("Cells", [plain_table("", cells, "A line is one run of the grid.")])]


def _group_blocks(rows: Sequence[Row]) -> list[Any]:
    modalities = grouped(rows, "modality")
    blocks: list[Any] = [_table(rows, metric) for metric in DECIMALS]
    plots = [score_plots(own, "row", modality) for (modality,), own in modalities.items()]
    return [*blocks, *(Plots(pair) for pair in plots)]


def _table(rows: Sequence[Row], metric: str) -> Table:
    """One metric: a line per modality and row of the suite, means ± sd over seeds."""
    runs = {
        name: [summarise(own) for own in grouped(members, "seed").values()]
        for (name,), members in grouped(rows, "row").items()
    }
    classes = [name for (name,) in grouped(rows, "class")]
    lines: list[list[Cell | str]] = []
    for (modality,) in grouped(rows, "modality"):
        for name, summaries in runs.items():
            parts = [s["modalities"][modality] for s in summaries if modality in s["modalities"]]
            if not parts:
                continue
            by_class = [[p["classes"][c] for p in parts if c in p["classes"]] for c in classes]
            average = [part["average"] for part in parts]
            cells = [spread_cell(_over(found, metric), metric) for found in by_class]
            cells.append(spread_cell(_over(average, metric), metric, strong=True))
            wrong = [count(sum(a[key] for a in average)) for key in ("n_missed", "n_false")]
            lines.append([modality, name, count(len(parts)), *cells, *wrong])
    columns = ["modality", "row", "seeds", *classes, f"mean of the {len(classes)}",
               "missed", "false"]  # fmt: skip
    note = "Mean ± sample standard deviation over seeds. The mean over classes is our own."
    return Table(TITLES[metric], columns, lines, note)


def _over(cells: Sequence[Summary], metric: str) -> dict[str, float | None]:
    """Mean and sd over runs of the cells' means."""
    means = [cell[metric]["mean"] for cell in cells if cell[metric]["mean"] is not None]
    return {
        "mean": statistics.fmean(means) if means else None,
        "sd": statistics.stdev(means) if len(means) > 1 else None,
    }


def _numbers(row: Row, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in NUMBERS:
        try:
            found[name] = float(row[name] or "nan")
            if name.startswith("n_"):
                found[name] = int(found[name])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: {name} is {row[name]!r}, expected a number") from error
    return found
