"""The tables of a benchmark: scores per organ with the best marked, and what each row costs."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crossvox.benchmark.scores import AVERAGE, OVERALL, change_lines
from crossvox.benchmark.text_table import Cell, Mark, TextTable
from crossvox.evaluation.scores import DECIMALS

Line = Mapping[str, Any]

TITLES = {"dice": "Dice", "assd_mm": "ASSD in mm"}

CELL_COLUMNS = (
    "suite", "data", "labels", "backbone", "row", "method", "seed", "state", "uses_unlabelled",
    "pretrained_on", "adaptation", "parameters", "train_seconds", "cpu_seconds", "peak_mb",
    "attempts", "jobs", "threads", "crossvox", "torch", "commit", "log",
)  # fmt: skip
"""Of `cells.csv`: a line is one run. `cpu_seconds` are the last attempt's, scoring included."""


def overview_table(lines: Sequence[Line], caption: str, bounds: Collection[str] = ()) -> TextTable:
    """The classes' mean Dice of every row, a column per data set and modality, variants left out.

    Args:
        lines: as of `score_table`, of one backbone and label count, of all data sets.
        caption: what the table is of.
        bounds: as of `score_table`.
    """
    own = [x for x in lines if x["metric"] == "dice" and x["class"] == AVERAGE]
    own = [x for x in own if not x["variant"]]
    columns = sorted(
        dict.fromkeys((line["data"], line["modality"]) for line in own),
        key=lambda column: ([x["data"] for x in own].index(column[0]), column[1] == OVERALL),
    )
    names = list(dict.fromkeys(line["row"] for line in own))
    found = {(line["data"], line["modality"], line["row"]): line for line in own}
    cells = [
        _marked([found.get((*column, name)) for name in names], "dice", bounds)
        for column in columns
    ]
    rows = [[Cell(name), *(column[i] for column in cells)] for i, name in enumerate(names)]
    titles = [f"{data}: {'mean' if m == OVERALL else m}" for data, m in columns]
    return TextTable(f"Dice, mean of the classes: {caption}", ["row", *titles], rows)


def score_table(
    lines: Sequence[Line],
    metric: str,
    reference: str,
    caption: str,
    bounds: Collection[str] = (),
) -> TextTable:
    """One metric of one table of the suite.

    Args:
        lines: of `crossvox.benchmark.scores.score_lines`, of one group.
        metric: "dice" or "assd_mm".
        reference: the row that the others are compared with.
        caption: what the table is of; the metric is put before it.
        bounds: rows that are no rivals, as they have labels of their own; none is marked.

    Returns:
        A block of rows per modality and one of the mean over modalities: mean ± sd over seeds per
        class and of the classes' mean, with the best two of a block marked.
    """
    own = [line for line in lines if line["metric"] == metric]
    classes = list(dict.fromkeys(line["class"] for line in own if line["class"] != AVERAGE))
    modalities = list(dict.fromkeys(line["modality"] for line in own))
    modalities.sort(key=lambda modality: modality == OVERALL)
    names = list(dict.fromkeys(line["row"] for line in own))
    found = {(line["modality"], line["row"], line["class"]): line for line in own}
    compared = any(line["difference"] is not None for line in own)
    head = ["modality", "row", "seeds", *classes, f"mean of the {len(classes)}", "missed", "false"]
    head += [f"Δ to {reference} [95 %]", "p"] if compared else []
    rows: list[list[Cell]] = []
    breaks = set()
    for modality in modalities:
        breaks.add(len(rows))
        columns = [
            _marked([found.get((modality, name, column)) for name in names], metric, bounds)
            for column in (*classes, AVERAGE)
        ]
        for number, name in enumerate(names):
            total = found.get((modality, name, AVERAGE))
            if total is None:
                continue
            cells = [Cell(modality), Cell(name), Cell(str(total["seeds"]))]
            cells += [column[number] for column in columns]
            cells += [Cell(str(total["missed"])), Cell(str(total["false"]))]
            rows.append(cells + (_difference(total, metric) if compared else []))
    return TextTable(f"{TITLES[metric]}: {caption}", head, rows, 2, frozenset(breaks))


def variant_table(
    lines: Sequence[Line], metric: str, caption: str, bounds: Collection[str] = ()
) -> TextTable:
    """The classes' mean of every row against the test's variants, a block per modality.

    Args:
        lines: as of `score_table`, of one group with all its variants.
        metric: "dice" or "assd_mm".
        caption: what the table is of.
        bounds: as of `score_table`.
    """
    own = [x for x in lines if x["metric"] == metric and x["class"] == AVERAGE]
    variants = list(dict.fromkeys(line["variant"] for line in own))
    modalities = list(dict.fromkeys(line["modality"] for line in own))
    modalities.sort(key=lambda modality: modality == OVERALL)
    names = list(dict.fromkeys(line["row"] for line in own))
    found = {(line["modality"], line["row"], line["variant"]): line for line in own}
    rows: list[list[Cell]] = []
    breaks = set()
    for modality in modalities:
        breaks.add(len(rows))
        columns = [
            _marked([found.get((modality, n, v)) for n in names], metric, bounds) for v in variants
        ]
        for number, name in enumerate(names):
            cells = [Cell(modality), Cell(name), *(column[number] for column in columns)]
            rows.append(cells)
    head = ["modality", "row", *(_title(variant) for variant in variants)]
    return TextTable(f"{TITLES[metric]} by test: {caption}", head, rows, 2, frozenset(breaks))


def change_table(cases: Sequence[Line], metric: str, caption: str) -> TextTable:
    """What the test's variants change for each row: difference to its plain test, and interval.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, of one group with all its variants.
        metric: "dice" or "assd_mm".
        caption: what the table is of.
    """
    lines = change_lines(cases, metric)
    tests = list(dict.fromkeys((line["variant"], line["modality"]) for line in lines))
    rows: list[list[Cell]] = []
    breaks = set()
    for variant, modality in tests:
        breaks.add(len(rows))
        own = [x for x in lines if (x["variant"], x["modality"]) == (variant, modality)]
        for line in own:
            names = (_title(variant), modality, line["row"])
            rows.append([*(Cell(name) for name in names), *_difference(line, metric)])
    head = ["test", "modality", "row", "Δ to the same runs' plain test [95 %]", "p"]
    return TextTable(f"{TITLES[metric]}, change: {caption}", head, rows, 3, frozenset(breaks))


def volume_table(cases: Sequence[Line], caption: str) -> TextTable:
    """Median of predicted ÷ true volume per row, modality and class: what is over-segmented.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, of one group; scans without the class, whose
            ratio is none, are left out.
        caption: what the table is of.
    """
    there = [case for case in cases if case["volume_truth_ml"] > 0]
    modalities, names, classes = (
        list(dict.fromkeys(case[key] for case in cases)) for key in ("modality", "row", "class")
    )
    ratios: dict[tuple[str, str, str], list[float]] = {}
    for case in there:
        place = (case["modality"], case["row"], case["class"])
        ratio = case["volume_prediction_ml"] / case["volume_truth_ml"]
        ratios.setdefault(place, []).append(ratio)
    rows = []
    for modality in modalities:
        for name in names:
            own = [ratios.get((modality, name, c)) for c in classes]
            if any(own):
                shown = (Cell("" if x is None else f"{statistics.median(x):.2f}") for x in own)
                rows.append([Cell(modality), Cell(name), *shown])
    breaks = [i for i, row in enumerate(rows) if not i or row[0] != rows[i - 1][0]]
    head = ["modality", "row", *classes]
    title = f"Predicted ÷ true volume: {caption}; medians"
    return TextTable(title, head, rows, 2, frozenset(breaks))


def cost_table(cells: Sequence[Line], caption: str) -> TextTable:
    """What each row uses and takes: means over its finished cells.

    Args:
        cells: mappings with the keys `CELL_COLUMNS`, of one data set and backbone.
        caption: what the table is of.
    """
    head = ["row", "uses unlabelled", "pre-trained on", "adaptation", "parameters, M",
            "train, min", "CPU, min", "peak memory, MB", "done"]  # fmt: skip
    rows = []
    for name in dict.fromkeys(cell["row"] for cell in cells):
        own = [cell for cell in cells if cell["row"] == name]
        done = [cell for cell in own if cell["state"] == "done"]
        first = own[0]
        rows.append([
            Cell(name),
            Cell(first["uses_unlabelled"]),
            Cell(first["pretrained_on"] or "nothing"),
            Cell(first["adaptation"] or "none"),
            Cell(f"{float(first['parameters']) / 1e6:.2f}"),
            Cell(_mean(done, "train_seconds", 60, 1)),
            Cell(_mean(done, "cpu_seconds", 60, 1)),
            Cell(_mean(done, "peak_mb", 1, 0)),
            Cell(f"{len(done)} of {len(own)}"),
        ])  # fmt: skip
    return TextTable(caption, head, rows, left=4)


def _title(variant: str) -> str:
    kind, _, amount = variant.partition("=")
    words = {"": "as it is", "shift": f"shift {amount} mm", "rotate": f"rotation {amount}°"}
    return words.get(kind, f"{amount.replace('+', ' + ')} only")


def _marked(column: Sequence[Line | None], metric: str, bounds: Collection[str] = ()) -> list[Cell]:
    """The cells of one column of one block; what looks equal is marked alike."""
    decimals = DECIMALS[metric]
    means = [None if line is None or line["mean"] is None else line["mean"] for line in column]
    shown = [None if mean is None else round(mean, decimals) for mean in means]
    rivals = [
        None if x is None or x["row"] in bounds else v for x, v in zip(column, shown, strict=True)
    ]
    order = sorted({v for v in rivals if v is not None}, reverse=metric == "dice")
    marks: dict[float, Mark] = {}
    if sum(v is not None for v in rivals) > 1:
        marks = dict(zip(order, ("best", "second"), strict=False))
    cells = []
    for line, mean, rival in zip(column, means, rivals, strict=True):
        if line is None or mean is None:
            cells.append(Cell("" if line is None else "–"))
            continue
        spread = "" if line["sd"] is None else f" ± {line['sd']:.{decimals}f}"
        cells.append(
            Cell(f"{mean:.{decimals}f}{spread}", "" if rival is None else marks.get(rival, ""))
        )
    return cells


def _difference(line: Line, metric: str) -> list[Cell]:
    if line["difference"] is None:
        return [Cell(""), Cell("")]
    decimals = DECIMALS[metric]
    # Plus 0, which makes of −0 what nobody takes for a loss.
    rounded = (round(line[key], decimals) + 0.0 for key in ("difference", "low", "high"))
    difference, low, high = (f"{x:+.{decimals}f}".replace("-", "−") for x in rounded)
    return [Cell(f"{difference} [{low}, {high}]"), Cell(f"{line['p']:.3f}")]


def _mean(cells: Sequence[Line], key: str, unit: float, decimals: int) -> str:
    values = [float(cell[key]) for cell in cells if cell[key] not in ("", None)]
    return f"{statistics.fmean(values) / unit:.{decimals}f}" if values else "–"
