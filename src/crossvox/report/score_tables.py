"""Tables of a page that are made of rows of scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from crossvox.evaluation.metrics import averaged
from crossvox.evaluation.scores import COUNTS, DECIMALS, TITLES, Summary, group_rows, plus_minus
from crossvox.utils.text_table import TextCell, TextTable
from crossvox.workflows.prediction.scoring import mean_defined

Row = Mapping[str, Any]


def summary_table(summary: Summary) -> TextTable:
    """Return the means over cases of one run (`crossvox.evaluation.scores.summarise`)."""
    rows: list[list[TextCell | str]] = []
    for modality, part in summary["modalities"].items():
        rows += [[modality, name, *_cells(cell)] for name, cell in part["classes"].items()]
        rows.append(_strong([modality, "average", *_averages(part["average"])]))
    rows.append(_strong(["overall", "", *_averages(summary["overall"])]))
    head = ["modality", "class", *TITLES.values(), "scans", "missed", "false", "empty in both"]
    note = f"Mean ± {summary['averages']} {summary['policy']}"
    return TextTable("Means", head, rows, left=2, note=note)


def case_table(rows: Sequence[Row]) -> TextTable:
    """Return a line per scan: mean Dice, mean ASSD of the organs found, and each class's Dice.

    A last column marks scans that the run learnt from, if there are any.
    """
    classes = list(dict.fromkeys(row["class"] for row in rows))
    any_seen = any(row["seen"] for row in rows)
    lines = []
    for (case, modality), own in group_rows(rows, "case", "modality").items():
        by_class = {row["class"]: row for row in own}
        means = [
            _text(mean_defined(averaged(row, metric) for row in own), digits)
            for metric, digits in DECIMALS.items()
        ]
        dice = [_text(by_class.get(name, {"dice": math.nan})["dice"], 3) for name in classes]
        lost = [str(sum(row[key] for row in own)) for key in COUNTS[:2]]
        seen = ["learnt from" if own[0]["seen"] else ""] * any_seen
        lines.append([case, modality, *means, *lost, *dice, *seen])
    means = [f"mean {title}" for title in TITLES.values()]
    head = ["case", "modality", *means, "missed", "false", *(f"Dice {name}" for name in classes)]
    return TextTable("Scans", head + ["label"] * any_seen, lines, left=2)


def label_size_table(rows: Sequence[Row]) -> TextTable:
    """Return the size of each class in the truth of the scored scans, in mL."""
    lines = []
    for (modality, name), own in group_rows(rows, "modality", "class").items():
        sizes = [size for row in own if (size := row["volume_truth_ml"]) > 0]
        found = [f(sizes) if sizes else math.nan for f in (statistics.median, min, max)]
        lines.append([modality, name, str(len(sizes)), *(_text(v, 1) for v in found)])
    head = ["modality", "class", "scans that show it", "median (mL)", "least", "most"]
    return TextTable("Sizes of the labels, in the scans scored", head, lines, left=2)


def _cells(cell: Row) -> list[str]:
    scores = [plus_minus(cell[metric], digits) for metric, digits in DECIMALS.items()]
    return [*scores, *(str(cell[key]) for key in ("n", *COUNTS))]


def _averages(cell: Row) -> list[str]:
    """Return the cells of a mean over classes or modalities, which is of no number of scans."""
    values = _cells(cell)
    return [*values[: len(DECIMALS)], "", *values[len(DECIMALS) + 1 :]]


def _strong(texts: Sequence[str]) -> list[TextCell | str]:
    return [TextCell(text, "strong") for text in texts]


def _text(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
