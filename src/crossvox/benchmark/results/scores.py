"""Mean scores of a benchmark, one line per row, modality, class and metric, with comparisons."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from crossvox.evaluation.comparison import compare
from crossvox.evaluation.scores import COLUMNS, DECIMALS, group_rows, is_fused, summarise

GROUP = ("data", "labels", "steps", "variant")
"""Columns whose values all rows of one table share."""

CASE_COLUMNS = (
    "suite", "data", "labels", "steps", "backbone", "variant", "row", "method", "seed", *COLUMNS,
)  # fmt: skip
"""Columns of `cases.csv`, a line per class of a scan that a cell of the grid predicted."""

SCORE_COLUMNS = (
    *GROUP, "row", "backbone", "modality", "class", "metric", "mean", "sd", "seeds", "missed",
    "false", "difference", "low", "high", "p", "cases",
)  # fmt: skip
"""Columns of `scores.csv`."""

OVERALL, AVERAGE = "overall", "average"
"""Names in place of a modality in means over modalities, and of a class in means over classes."""

Line = Mapping[str, Any]
"""A line of `cases.csv`, `scores.csv` or `cells.csv`, by column."""


def score_lines(cases: Sequence[Line], reference: str) -> list[Line]:
    """Return mean and sd over seeds of every row of every table, and the difference to a reference.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`.
        reference: the row that the others' averages are compared with, within a table.

    Returns:
        Mappings with the keys `SCORE_COLUMNS`. The averages are means of the listed classes, and
        of the modalities for `OVERALL`. A value that does not exist is None.
    """
    lines: list[Line] = []
    tested = group_rows(cases, *GROUP[:-1])
    for group, members in group_rows(cases, *GROUP).items():
        rows = {row: own for (row,), own in group_rows(members, "row").items()}
        modalities = _modalities(tested[group[:-1]])
        for row, own in rows.items():
            other = rows.get(reference) if row != reference else None
            place = dict(zip(GROUP, group, strict=True))
            place |= {"row": row, "backbone": own[0]["backbone"]}
            # A row or test that lacks a modality has no mean to compare with that of all.
            whole = _modalities(own) == modalities
            lines += [
                {**place, **line}
                for line in _row_lines(own, other)
                if whole or line["modality"] != OVERALL
            ]
    return lines


def change_lines(cases: Sequence[Line], metric: str) -> list[Line]:
    """Compare each further test with the plain test of the same runs, case by case.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, of one data set, label count and number of
            steps.
        metric: "dice" or "assd_mm".

    Returns:
        Mappings with row, variant, modality, difference (test minus plain test), low, high, p and
        cases: one per row, test and modality, and one for `OVERALL` where there are several.
    """
    lines: list[Line] = []
    for (row,), own in group_rows(cases, "row").items():
        tests = {variant: part for (variant,), part in group_rows(own, "variant").items()}
        plain = tests.pop("", [])
        for variant, part in tests.items():
            names = list(dict.fromkeys(line["modality"] for line in part))
            for modality in [*names, OVERALL] if len(_modalities(part)) > 1 else names:
                place = {"row": row, "variant": variant, "modality": modality}
                lines.append({**place, **_difference(part, plain, modality, metric)})
    return lines


def _modalities(lines: Sequence[Line]) -> set[str]:
    """Return the modalities of some lines; the fused label map is none."""
    return {line["modality"] for line in lines if not is_fused(line["modality"])}


def _belongs(name: str, modality: str) -> bool:
    """Return whether scores of that name are part of a modality's mean, or of `OVERALL`."""
    return not is_fused(name) if modality == OVERALL else name == modality


def _row_lines(own: Sequence[Line], reference: Sequence[Line] | None) -> list[Line]:
    """Return the lines of one row of one table."""
    runs = [summarise(rows) for rows in group_rows(own, "seed").values()]
    places: dict[tuple[str, str], list[Line]] = {}
    for run in runs:
        for modality, part in run["modalities"].items():
            for name, cell in part["classes"].items():
                places.setdefault((modality, name), []).append(cell)
            places.setdefault((modality, AVERAGE), []).append(part["average"])
        places.setdefault((OVERALL, AVERAGE), []).append(run["overall"])
    # The mean over modalities comes last, even if the first run lacks a modality.
    ordered = sorted(places, key=lambda place: place[0] == OVERALL)
    lines: list[Line] = []
    for modality, name in ordered:
        cells = places[modality, name]
        for metric in DECIMALS:
            line = {"modality": modality, "class": name, "metric": metric, **_spread(cells, metric)}
            compared = reference if name == AVERAGE else None
            lines.append({**line, **_difference(own, compared, modality, metric)})
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


def _difference(
    own: Sequence[Line], reference: Sequence[Line] | None, modality: str, metric: str
) -> Line:
    """Return the average's difference to the reference with interval and p; None without one."""
    empty = dict.fromkeys(("difference", "low", "high", "p", "cases"))
    if reference is None:
        return empty
    first, second = (
        [row for row in rows if _belongs(row["modality"], modality)] for rows in (own, reference)
    )
    found = compare(first, second, metric)
    return empty if found is None else {name: getattr(found, name) for name in empty}
