"""Tables and plots of a page that are made of rows of scores."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from crossvox.evaluation.scores import COUNTS, DECIMALS, Summary, plus_minus
from crossvox.figures.series import number
from crossvox.report.page import Cell, Table
from crossvox.report.plots import BoxPlot, box_plot

Row = Mapping[str, Any]

TITLES = {"dice": "Dice", "assd_mm": "ASSD (mm)"}


def summary_table(summary: Summary) -> Table:
    """Means over cases of one run (`crossvox.evaluation.scores.summarise`)."""
    rows: list[list[Cell | str]] = []
    for modality, part in summary["modalities"].items():
        rows += [[modality, name, *_cells(cell)] for name, cell in part["classes"].items()]
        rows.append([_strong(modality), _strong("average"), *_cells(part["average"], True)])
    rows.append([_strong("overall"), "", *_cells(summary["overall"], True)])
    columns = ["modality", "class", *TITLES.values(), "n", "missed", "false", "empty in both"]
    note = f"Mean ± {summary['averages']} {summary['policy']}"
    return Table("Means", columns, rows, note)


def case_table(rows: Sequence[Row]) -> Table:
    """A line per scan: its mean Dice and ASSD, and each class's Dice."""
    classes = _unique(rows, "class")
    lines: list[list[Cell | str]] = []
    for (case, modality), own in grouped(rows, "case", "modality").items():
        by_class = {row["class"]: row for row in own}
        means = [_cell(mean(own, metric), digits) for metric, digits in DECIMALS.items()]
        dice = [_cell(number(by_class.get(name, {}).get("dice")), 3) for name in classes]
        lines.append([case, modality, *means, *dice])
    columns = ["case", "modality", "mean Dice", "mean ASSD (mm)", *(f"Dice {c}" for c in classes)]
    return Table("Scans", columns, lines)


def volume_table(rows: Sequence[Row]) -> Table:
    """How large each class is in the truth of the scored scans, in mL."""
    lines: list[list[Cell | str]] = []
    for (modality, name), own in grouped(rows, "modality", "class").items():
        sizes = [v for row in own if (v := number(row["volume_truth_ml"]))]
        found = [f(sizes) if sizes else None for f in (statistics.median, min, max)]
        lines.append([modality, name, count(len(sizes)), *(_cell(v, 1) for v in found)])
    columns = ["modality", "class", "scans that show it", "median (mL)", "least", "most"]
    return Table("Sizes of the labels, in the scans scored", columns, lines)


def score_plots(rows: Sequence[Row], by: str, title: str = "") -> list[BoxPlot]:
    """Box plots of each metric by class, with one box per value of the column `by`."""
    plots = []
    for metric, digits in DECIMALS.items():
        values: dict[str, dict[str, list[float]]] = {}
        for (name, series), own in grouped(rows, "class", by).items():
            found = [v for row in own if (v := number(row[metric])) is not None]
            values.setdefault(name, {})[series] = found
        heading = f"{title}: {TITLES[metric]}" if title else TITLES[metric]
        most = 1.0 if metric == "dice" else None
        plots.append(box_plot(heading, values, most, digits))
    return [plot for plot in plots if plot is not None]


def grouped(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of `keys`, in the order in which these first occur."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def mean(rows: Sequence[Row], metric: str) -> float | None:
    """The mean of a metric over the rows that have it; None if none has."""
    values = [v for row in rows if (v := number(row[metric])) is not None]
    return sum(values) / len(values) if values else None


def plain_table(title: str, rows: Sequence[Row], note: str = "") -> Table:
    """Rows as they are, a column per key of the first; columns that say nothing are left out."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] != "" for row in rows)]
    lines = [[Cell(str(row[name]), number(row[name])) for name in names] for row in rows]
    return Table(title, names, lines, note)


def spread_cell(value: Mapping[str, float | None], metric: str, strong: bool = False) -> Cell:
    """The cell of `{"mean", "sd"}`."""
    return Cell(plus_minus(value, DECIMALS[metric]), _sortable(value["mean"]), strong)


def count(value: int) -> Cell:
    """The cell of a whole number."""
    return Cell(str(value), value)


def _cells(cell: Row, strong: bool = False) -> list[Cell]:
    counts = [count(cell[key]) for key in ("n", *COUNTS)]
    return [*(spread_cell(cell[metric], metric, strong) for metric in DECIMALS), *counts]


def _cell(value: float | None, digits: int) -> Cell:
    return Cell("–" if value is None else f"{value:.{digits}f}", _sortable(value))


def _sortable(value: float | None) -> float:
    return float("nan") if value is None else value


def _strong(text: str) -> Cell:
    return Cell(text, strong=True)


def _unique(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))
