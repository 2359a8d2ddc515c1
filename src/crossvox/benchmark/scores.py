"""From the scores of all cells of a benchmark to one line per row, modality, class and metric."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from crossvox.evaluation.comparison import compare
from crossvox.evaluation.scores import COLUMNS, DECIMALS, summarise

GROUP = ("data", "labels", "backbone", "variant")
"""What the rows of one table share."""

CASE_COLUMNS = ("suite", *GROUP, "row", "method", "seed", *COLUMNS)
"""Of `cases.csv`: a line is one class of one scan, as one cell of the grid predicted it."""

SCORE_COLUMNS = (
    *GROUP, "row", "modality", "class", "metric", "mean", "sd", "seeds", "missed", "false",
    "difference", "low", "high", "p", "cases",
)  # fmt: skip
"""Of `scores.csv`."""

OVERALL, AVERAGE = "overall", "average"
"""The modality of the mean over modalities, and the class of the mean over classes."""

Line = dict[str, Any]


def score_lines(cases: Sequence[Mapping[str, Any]], reference: str) -> list[Line]:
    """Mean and sd over seeds of every row of every table, and how it compares.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`.
        reference: the row that the others' averages are compared with, within a table.

    Returns:
        Mappings with the keys `SCORE_COLUMNS`; the averages are means of the listed classes, and
        of the modalities for `OVERALL`. What does not exist is None.
    """
    lines = []
    tested = _split(cases, GROUP[:-1])
    for group, members in _split(cases, GROUP).items():
        rows = {row: own for (row,), own in _split(members, ("row",)).items()}
        modalities = {line["modality"] for line in tested[group[:-1]]}
        for row, own in rows.items():
            other = rows.get(reference) if row != reference else None
            place = dict(zip(GROUP, group, strict=True)) | {"row": row}
            # A row, or a test, of one modality has no mean over modalities to compare with others'.
            whole = {line["modality"] for line in own} == modalities
            lines += [
                place | line
                for line in _row_lines(own, other)
                if whole or line["modality"] != OVERALL
            ]
    return lines


def change_lines(cases: Sequence[Mapping[str, Any]], metric: str) -> list[Line]:
    """What each further test of the same runs changes, compared case by case and seed by seed.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, of one data set, label count and backbone.
        metric: "dice" or "assd_mm".

    Returns:
        Mappings with row, variant, modality, difference (test less plain test), low, high, p and
        cases; of every row, test and modality tested, and of `OVERALL` where there are several.
    """
    lines = []
    for (row,), own in _split(cases, ("row",)).items():
        tests = {variant: part for (variant,), part in _split(own, ("variant",)).items()}
        plain = tests.pop("", [])
        for variant, part in tests.items():
            modalities = list(dict.fromkeys(line["modality"] for line in part))
            for modality in [*modalities, OVERALL][: 1 if len(modalities) == 1 else None]:
                place = {"row": row, "variant": variant, "modality": modality}
                line = {"class": AVERAGE, "metric": metric, **place}
                lines.append(place | _compared(part, plain, line))
    return lines


def _row_lines(own: Sequence[Line], reference: Sequence[Line] | None) -> list[Line]:
    """The lines of one row of one table."""
    runs = [summarise(rows) for rows in _split(own, ("seed",)).values()]
    places: dict[tuple[str, str], list[Line]] = {}
    for run in runs:
        for modality, part in run["modalities"].items():
            for name, cell in part["classes"].items():
                places.setdefault((modality, name), []).append(cell)
            places.setdefault((modality, AVERAGE), []).append(part["average"])
        places.setdefault((OVERALL, AVERAGE), []).append(run["overall"])
    # The mean over modalities closes the list, whatever the first run lacked.
    ordered = sorted(places, key=lambda place: place[0] == OVERALL)
    lines = []
    for modality, name in ordered:
        cells = places[modality, name]
        for metric in DECIMALS:
            line = {"modality": modality, "class": name, "metric": metric, **_spread(cells, metric)}
            lines.append(line | _compared(own, reference, line))
    return lines


def _spread(cells: Sequence[Line], metric: str) -> Line:
    means = [cell[metric]["mean"] for cell in cells if cell[metric]["mean"] is not None]
    return {
        "mean": statistics.fmean(means) if means else None,
        "sd": statistics.stdev(means) if len(means) > 1 else None,
        "seeds": len(cells),
        "missed": sum(cell["n_missed"] for cell in cells),
        "false": sum(cell["n_false"] for cell in cells),
    }


def _compared(own: Sequence[Line], reference: Sequence[Line] | None, line: Line) -> Line:
    """Difference, interval and p of an average; empty for classes and without a reference."""
    empty = dict.fromkeys(("difference", "low", "high", "p", "cases"))
    if reference is None or line["class"] != AVERAGE:
        return empty
    first, second = (
        [row for row in rows if line["modality"] in (row["modality"], OVERALL)]
        for rows in (own, reference)
    )
    found = compare(first, second, line["metric"])
    return empty if found is None else {name: getattr(found, name) for name in empty}


def _split(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[tuple, list[Line]]:
    """Rows by their values of `keys`, in the order of first appearance."""
    found: dict[tuple, list[Line]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(dict(row))
    return found
