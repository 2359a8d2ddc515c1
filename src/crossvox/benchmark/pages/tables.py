"""The tables of a benchmark: scores per class with the best marked, comparisons and costs."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from crossvox.benchmark.cells.cell import OWN_NETWORK
from crossvox.benchmark.pages.reading import reading
from crossvox.benchmark.results.files import Results
from crossvox.benchmark.results.scores import AVERAGE, OVERALL, Line, change_lines, score_lines
from crossvox.evaluation.scores import DECIMALS, TITLES, group_rows, plus_minus, signed
from crossvox.utils.text_table import Mark, TextCell, TextTable

CONVERGED_STEPS, CONVERGED_GAIN = 4, 0.01
"""Times as many steps, and the change of Dice below which a row has converged."""

ONE_RULE = "largest=always"
"""Test in which all rows make label maps by one rule."""

CONDITION = ("labels", "steps")
"""Columns whose values all rows of one table of a data set share."""


@dataclass(frozen=True)
class TableGroup:
    """The tables under one heading, and what they say in sentences."""

    heading: str
    tables: list[TextTable]
    sentences: list[str] = field(default_factory=list)


def table_groups(results: Results) -> Iterator[TableGroup]:
    """Yield all tables of a benchmark.

    First comes the overview. Then follow, for each data set, the Dice by training steps if the
    suite varies them, a group per `CONDITION`, and the costs.
    """
    yield overview_group(results)
    for data in results.datasets:
        own = _where(results.scores, data=data)
        place = {row: number for number, row in enumerate(results.about["rows"])}
        plain = _where(results.cases, data=data, variant="")
        plain.sort(key=lambda line: place.get(line["row"], len(place)))
        tables = [
            length_table(cases, f"{data}, {labels_text(labels)}, {networks_text(cases)}")
            for (labels,), cases in group_rows(plain, "labels").items()
            if len({line["steps"] for line in cases}) > 1
        ]
        if tables:
            yield TableGroup(f"{data}: by training steps", tables)
        for condition in group_rows(own, *CONDITION):
            yield _score_group(results, data, *condition)
        costs = [
            cost_table(
                cells, f"Costs: {data}{f', {n} steps' if n else ''}; means over finished runs"
            )
            for (n,), cells in group_rows(_where(results.runs, data=data), "steps").items()
        ]
        yield TableGroup(f"{data}: costs", costs)


def overview_group(results: Results) -> TableGroup:
    """Return the mean Dice of every row, by each row's own rule for label maps and by one rule."""
    return TableGroup("Overview", list(_overviews(results)))


def _overviews(results: Results) -> Iterator[TextTable]:
    """Yield an overview per condition and rule, and its shares of each bound."""
    cells = group_rows(results.cells, *CONDITION)
    for condition, lines in group_rows(results.scores, *CONDITION).items():
        labels, steps = condition
        caption = f"{condition_text(labels, steps)}, {networks_text(lines)}"
        bounds = results.bounds(labels)
        for (variant,), own in group_rows(lines, "variant").items():
            if variant in ("", ONE_RULE):
                rule = f"; {_title(variant)}" if variant else ""
                yield overview_table(own, cells[condition], caption + rule, bounds)
                for bound in sorted(bounds & {line["row"] for line in own}):
                    yield share_table(own, bound, caption + rule)


def _score_group(results: Results, data: str, labels: str, steps: str) -> TableGroup:
    """Return the tables of one data set and condition."""
    place = {"data": data, "labels": labels, "steps": steps}
    lines, cases = _where(results.scores, **place), _where(results.cases, **place)
    plain = _where(lines, variant="")
    reference, bounds = results.about["reference"], results.bounds(labels)
    caption = f"{data}, {condition_text(labels, steps)}, {networks_text(lines)}"
    tables = [score_table(plain, metric, reference, caption, bounds) for metric in DECIMALS]
    tables.append(volume_ratio_table(_where(cases, variant=""), caption))
    if len(plain) < len(lines):
        tables += [variant_table(lines, metric, caption, bounds) for metric in DECIMALS]
        tables.append(change_table(cases, "dice", caption))
    rivals = [line for line in lines if line["row"] not in bounds]
    return TableGroup(caption, tables, reading(rivals, reference))


def _where(lines: Sequence[Line], **values: str) -> list[Line]:
    """Return the lines with these values."""
    return [line for line in lines if all(line[key] == value for key, value in values.items())]


def networks_text(lines: Sequence[Line]) -> str:
    """Return the backbone of most rows of a table, and the rows that have another one."""
    own = {line["row"]: line["backbone"] for line in lines}
    common = next((name for name, _ in Counter(own.values()).most_common(1)), "")
    others = {row: name for row, name in own.items() if name != common}
    named = (f"{row}: {'own network' if x == OWN_NETWORK else x}" for row, x in others.items())
    return "; ".join([common, *named])


def condition_text(labels: str, steps: str) -> str:
    """Return a label count, and the steps where a suite varies them, in words."""
    return f"{labels_text(labels)}, {steps} steps" if steps else labels_text(labels)


def labels_text(labels: str) -> str:
    """Return a label count in words."""
    return "all labels" if labels == "all" else f"labels: {count_text(labels)}"


def count_text(labels: str) -> str:
    """Return a label count as it is, a share of the scans in per cent."""
    return f"{float(labels) * 100:g} %" if re.fullmatch(r"[0-9]*\.[0-9]+", labels) else labels


def overview_table(
    lines: Sequence[Line], runs: Sequence[Line], caption: str, bounds: Collection[str] = ()
) -> TextTable:
    """Return every row's size, mean cost and mean Dice, a column per data set and modality.

    Args:
        lines: as of `score_table`, of one condition and test, and of all data sets.
        runs: mappings with the keys `CELL_COLUMNS`, of the same condition.
        caption: what the table is of.
        bounds: as of `score_table`.
    """
    own, columns = _overview(lines)
    names = list(dict.fromkeys(line["row"] for line in own))
    found = {(line["data"], line["modality"], line["row"]): line for line in own}
    cells = [
        [_closed_up(x) for x in _marked([found.get((*c, name)) for name in names], "dice", bounds)]
        for c in columns
    ]
    rows = []
    for i, name in enumerate(names):
        made = _where(runs, row=name)
        done = _where(made, state="done")
        size = _millions([run["parameters"] for run in made])
        cost = _mean(done, "cpu_seconds", 60, 1)
        rows.append([name, size, cost, *(column[i] for column in cells)])
    head = ["row", "parameters, M", "CPU, min", *map(_overview_title, columns)]
    return TextTable(f"Dice, mean of the classes: {caption}", head, rows)


def share_table(lines: Sequence[Line], bound: str, caption: str) -> TextTable:
    """Return every other row's mean Dice over classes in per cent of that of a bound.

    Args:
        lines: as of `overview_table`.
        bound: the row.
        caption: what the table is of.
    """
    own, columns = _overview(lines)
    found = {(line["row"], line["data"], line["modality"]): line["mean"] for line in own}
    rows = []
    for name in dict.fromkeys(line["row"] for line in own if line["row"] != bound):
        pairs = [(found.get((name, *c)), found.get((bound, *c))) for c in columns]
        rows.append(
            [name, *(f"{100 * a / b:.0f}" if a is not None and b else "–" for a, b in pairs)]
        )
    head = ["row", *map(_overview_title, columns)]
    return TextTable(f"Dice in % of that of {bound}: {caption}", head, rows)


def _overview(lines: Sequence[Line]) -> tuple[list[Line], list[tuple[str, str]]]:
    """Return the lines of mean Dice over classes, and their data sets and modalities in order."""
    own = _where(lines, metric="dice", **{"class": AVERAGE})
    places = dict.fromkeys((line["data"], line["modality"]) for line in own)
    order = list(dict.fromkeys(data for data, _ in places))
    return own, sorted(places, key=lambda place: (order.index(place[0]), place[1] == OVERALL))


def _overview_title(place: tuple[str, str]) -> str:
    data, modality = place
    return f"{data}: {'mean' if modality == OVERALL else modality}"


def _closed_up(cell: TextCell) -> TextCell:
    """Return a cell without spaces, for a table of many columns."""
    return replace(cell, text=cell.text.replace(" ", ""))


def score_table(
    lines: Sequence[Line],
    metric: str,
    reference: str,
    caption: str,
    bounds: Collection[str] = (),
) -> TextTable:
    """Return mean ± sd over seeds of one metric, per class and of the classes' mean.

    Args:
        lines: those of one group from `crossvox.benchmark.results.scores.score_lines`.
        metric: "dice" or "assd_mm".
        reference: the row that the others are compared with.
        caption: what the table is of; the metric is put before it.
        bounds: rows with other labels than the table's; they compete for no mark.

    Returns:
        A block of rows per modality and one for the mean over modalities. The best two rows of a
        block are marked in each column.
    """
    own = _where(lines, metric=metric)
    classes = list(dict.fromkeys(line["class"] for line in own if line["class"] != AVERAGE))
    totals = {(x["modality"], x["row"]): x for x in own if x["class"] == AVERAGE}
    compared = any(line["difference"] is not None for line in own)
    head = ["modality", "row", "seeds", *classes, f"mean of the {len(classes)}", "missed", "false"]
    head += [f"Δ to {reference} [95 %]", "p"] if compared else []
    rows: list[list[TextCell | str]] = []
    for modality, name, scores in _marked_rows(own, "class", [*classes, AVERAGE], metric, bounds):
        if total := totals.get((modality, name)):
            counts = [str(total["missed"]), str(total["false"])]
            difference = _difference(total, metric) if compared else []
            rows.append([modality, name, str(total["seeds"]), *scores, *counts, *difference])
    return TextTable(f"{TITLES[metric]}: {caption}", head, rows, left=2, block=1)


def variant_table(
    lines: Sequence[Line], metric: str, caption: str, bounds: Collection[str] = ()
) -> TextTable:
    """Return every row's mean over classes in each test, a block of rows per modality.

    Args:
        lines: as of `score_table`, with all tests of the group.
        metric: "dice" or "assd_mm".
        caption: what the table is of.
        bounds: as of `score_table`.
    """
    own = _where(lines, metric=metric, **{"class": AVERAGE})
    variants = list(dict.fromkeys(line["variant"] for line in own))
    marked = _marked_rows(own, "variant", variants, metric, bounds)
    rows: list[list[TextCell | str]] = [[modality, row, *cells] for modality, row, cells in marked]
    head = ["modality", "row", *(_title(variant) for variant in variants)]
    return TextTable(f"{TITLES[metric]} by test: {caption}", head, rows, left=2, block=1)


def length_table(cases: Sequence[Line], caption: str) -> TextTable:
    """Return every row's mean Dice over classes by training steps, a block of rows per modality.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, of the plain test, one data set and label
            count, and all numbers of steps.
        caption: what the table is of.

    Returns:
        A column per number of steps, and a last one: what a row's last increase has brought, over
        the seeds that have both lengths. A row has converged if four times the steps, or more,
        bring or cost less than a point.
    """
    own = _average_dice(cases)
    lengths = sorted({line["steps"] for line in own}, key=int)
    found = {(line["modality"], line["row"], line["steps"]): line for line in own}
    gains = _last_gains(cases)
    names = list(dict.fromkeys(case["row"] for case in cases))
    modalities = sorted(dict.fromkeys(x["modality"] for x in own), key=lambda m: m == OVERALL)
    rows: list[list[TextCell | str]] = []
    for modality in modalities:
        for name in names:
            cells = [found.get((modality, name, n)) for n in lengths]
            if not any(cells):
                continue
            shown = ["" if x is None else plus_minus(x, DECIMALS["dice"]) for x in cells]
            rows.append([modality, name, *shown, gains.get((modality, name), "")])
    head = ["modality", "row", *(f"{n} steps" for n in lengths), "last gain"]
    return TextTable(f"Dice by training steps: {caption}", head, rows, left=2, block=1)


def _average_dice(cases: Sequence[Line]) -> list[Line]:
    return _where(score_lines(cases, reference=""), metric="dice", **{"class": AVERAGE})


def _last_gains(cases: Sequence[Line]) -> dict[tuple[str, str], str]:
    """Return (modality, row) → what the row's last increase of the steps has brought."""
    gains = {}
    newest = sorted({line["steps"] for line in cases}, key=int)[-2:]
    for (row,), own in group_rows(cases, "row").items():
        seeds = {n: {x["seed"] for x in lines} for (n,), lines in group_rows(own, "steps").items()}
        if len(seeds) < 2:
            continue
        last = sorted(seeds, key=int)[-2:]
        both = set.intersection(*(seeds[n] for n in last))
        lines = _average_dice([x for x in own if x["steps"] in last and x["seed"] in both])
        where = "" if last == newest else f" ({' → '.join(last)})"
        for (modality,), pair in group_rows(lines, "modality").items():
            means = {line["steps"]: line["mean"] for line in pair}
            before, after = (means.get(n) for n in last)
            if before is not None and after is not None:
                longer = int(last[1]) >= CONVERGED_STEPS * int(last[0])
                gains[modality, row] = _gain(after - before, longer) + where
    return gains


def _gain(change: float, longer: bool) -> str:
    """Return a change of Dice, and whether it is small for so many steps more."""
    text = signed(change, DECIMALS["dice"])
    small = abs(round(change, DECIMALS["dice"])) < CONVERGED_GAIN
    return f"{text}, converged" if longer and small else text


def change_table(cases: Sequence[Line], metric: str, caption: str) -> TextTable:
    """Return how each test changes every row's score, with the interval of the difference.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, with all tests of one group.
        metric: "dice" or "assd_mm".
        caption: what the table is of.
    """
    lines = change_lines(cases, metric)
    tests = list(dict.fromkeys((line["variant"], line["modality"]) for line in lines))
    rows: list[list[TextCell | str]] = []
    for variant, modality in tests:
        own = [x for x in lines if (x["variant"], x["modality"]) == (variant, modality)]
        for line in own:
            names = (_title(variant), modality, line["row"])
            rows.append([*names, *_difference(line, metric)])
    head = ["test", "modality", "row", "Δ to the same runs' plain test [95 %]", "p"]
    return TextTable(f"{TITLES[metric]}, change: {caption}", head, rows, left=3, block=2)


def volume_ratio_table(cases: Sequence[Line], caption: str) -> TextTable:
    """Return the median of predicted ÷ true volume per row, modality and class.

    Args:
        cases: mappings with the keys `CASE_COLUMNS`, of one group; scans without the class are left
            out.
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
                medians = ("" if x is None else f"{statistics.median(x):.2f}" for x in own)
                rows.append([modality, name, *medians])
    head = ["modality", "row", *classes]
    title = f"Predicted ÷ true volume: {caption}; medians"
    return TextTable(title, head, rows, left=2, block=1)


def cost_table(cells: Sequence[Line], caption: str) -> TextTable:
    """Return what each row uses, and its mean cost over finished cells.

    Args:
        cells: mappings with the keys `CELL_COLUMNS`, of one data set and number of steps.
        caption: what the table is of.
    """
    head = ["row", "backbone", "uses unlabelled", "pre-trained on", "adaptation", "parameters, M",
            "train, min", "CPU, min", "peak memory, MB", "done"]  # fmt: skip
    rows = []
    for name, backbone in dict.fromkeys((cell["row"], cell["backbone"]) for cell in cells):
        own = _where(cells, row=name, backbone=backbone)
        done = [cell for cell in own if cell["state"] == "done"]
        first = own[0]
        rows.append([
            name,
            backbone,
            first["uses_unlabelled"],
            first["pretrained_on"] or "nothing",
            first["adaptation"] or "none",
            _millions([cell["parameters"] for cell in own]),
            _mean(done, "train_seconds", 60, 1),
            _mean(done, "cpu_seconds", 60, 1),
            _mean(done, "peak_mb", 1, 0),
            f"{len(done)} of {len(own)}",
        ])  # fmt: skip
    return TextTable(caption, head, rows, left=5)


def _title(variant: str) -> str:
    """Return a test's name in words."""
    kind, _, amount = variant.partition("=")
    words = {
        "": "as it is",
        "shift": f"shift {amount} mm",
        "rotate": f"rotation {amount}°",
        "largest": {
            "always": "most probable class, one component per one-piece class",
            "never": "most probable class, all components",
        }.get(amount, ""),
    }
    return words.get(kind, f"{amount.replace('+', ' + ')} only")


def _marked_rows(
    lines: Sequence[Line], key: str, columns: Sequence[str], metric: str, bounds: Collection[str]
) -> Iterator[tuple[str, str, list[TextCell]]]:
    """Yield modality, row and a cell per value of the column `key`; `OVERALL` comes last."""
    modalities, names = (dict.fromkeys(line[k] for line in lines) for k in ("modality", "row"))
    found = {(line["modality"], line["row"], line[key]): line for line in lines}
    for modality in sorted(modalities, key=lambda m: m == OVERALL):
        marked = [
            _marked([found.get((modality, n, c)) for n in names], metric, bounds) for c in columns
        ]
        for number, name in enumerate(names):
            yield modality, name, [column[number] for column in marked]


def _marked(
    column: Sequence[Line | None], metric: str, bounds: Collection[str] = ()
) -> list[TextCell]:
    """Return the cells of one column of one block.

    Equal numbers get equal marks. A Dice of 0, as shown, gets none: it found nothing. Of ASSD, the
    rows that lost fewest organs compete, since those that are missed have no distance.
    """
    decimals = DECIMALS[metric]
    means = [None if line is None or line["mean"] is None else line["mean"] for line in column]
    shown = [None if mean is None else round(mean, decimals) for mean in means]
    rivals = [
        None if x is None or x["row"] in bounds else v for x, v in zip(column, shown, strict=True)
    ]
    competing = sum(v is not None for v in rivals)
    if metric == "dice":
        rivals = [v or None for v in rivals]
    else:
        losses = [0 if x is None else x["missed"] + x["false"] for x in column]
        least = min((n for n, v in zip(losses, rivals, strict=True) if v is not None), default=0)
        rivals = [v if n == least else None for n, v in zip(losses, rivals, strict=True)]
    order = sorted({v for v in rivals if v is not None}, reverse=metric == "dice")
    marks: dict[float, Mark] = {}
    if competing > 1:
        marks = dict(zip(order, ("best", "second"), strict=False))
    cells = []
    for line, rival in zip(column, rivals, strict=True):
        if line is None:
            cells.append(TextCell(""))
            continue
        mark: Mark = "" if rival is None else marks.get(rival, "")
        lost = "" if metric == "dice" else _lost(line)
        cells.append(TextCell(plus_minus(line, decimals) + lost, mark))
    return cells


def _lost(line: Line) -> str:
    """Return how many organs have no distance, for beside the mean of those found."""
    counts = [f"{line[kind]} {kind}" for kind in ("missed", "false") if line[kind]]
    return f" ({', '.join(counts)})" if counts else ""


def _difference(line: Line, metric: str) -> list[str]:
    """Return the difference with its interval, and p."""
    if line["difference"] is None:
        return ["", ""]
    difference, low, high = (
        signed(line[key], DECIMALS[metric]) for key in ("difference", "low", "high")
    )
    return [f"{difference} [{low}, {high}]", f"{line['p']:.3f}"]


def _millions(numbers: Sequence[str]) -> str:
    """Return trained parameters in millions, as a range where data sets differ."""
    shown = [f"{n / 1e6:.2f}" for n in sorted(map(float, numbers))]
    return "–".join(dict.fromkeys([shown[0], shown[-1]])) if shown else ""


def _mean(cells: Sequence[Line], key: str, unit: float, decimals: int) -> str:
    values = [float(cell[key]) for cell in cells if cell[key] not in ("", None)]
    return f"{statistics.fmean(values) / unit:.{decimals}f}" if values else "–"
