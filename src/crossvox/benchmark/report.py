"""From the cells of a benchmark to its CSV files, tables and figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossvox.benchmark.cell import PLAIN, Cell
from crossvox.benchmark.document import Report, draw, markdown, tables
from crossvox.benchmark.scores import (
    CASE_COLUMNS,
    SCORE_COLUMNS,
    score_lines,
)
from crossvox.benchmark.suite import MethodRow, Suite
from crossvox.benchmark.tables import CELL_COLUMNS
from crossvox.benchmark.text_table import to_latex, to_markdown
from crossvox.errors import DataError, UsageError
from crossvox.evaluation.scores import COLUMNS, WHOLE, read_cases
from crossvox.training.record import read_facts
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write

Line = dict[str, Any]

TEXTS = ("suite", "data", "labels", "backbone", "variant", "row", "method", "case", "modality",
         "class")  # fmt: skip


def collect(suite: Suite, cells: Sequence[Cell], out: Path) -> None:
    """Write `suite.json`, `cases.csv` and `cells.csv` from what the cells hold.

    Only the scores of cells that are done, with all of their tests, are in `cases.csv`.
    """
    order = [list(suite.data), list(suite.labels), suite.methods, suite.seeds]

    def place(cell: Cell) -> tuple[int, ...]:
        own = (cell.dataset, cell.labels, cell.row, cell.seed)
        return tuple(names.index(name) for names, name in zip(order, own, strict=True))

    cells = sorted(cells, key=place)
    cases = [line for cell in cells if cell.state == "done" for line in _case_lines(suite, cell)]
    _write(out / "cases.csv", CASE_COLUMNS, cases)
    _write(out / "cells.csv", CELL_COLUMNS, [_cell_line(suite, cell, out) for cell in cells])
    keys = ("name", "title", "preset", "split", "checkpoint", "reference", "label_draw")
    about: Line = {key: getattr(suite, key) for key in keys} | {"seeds": list(suite.seeds)}
    about["settings"] = suite.set
    about["rows"] = {row.label: _own(row) for row in suite.methods}
    atomic_write(out / "suite.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def report(out: Path) -> Report:
    """Write `scores.csv`, `tables.md`, `tables.tex` and `figures/` from the CSV files in `out`.

    Raises:
        UsageError: `out` holds no benchmark.
        DataError: a file is damaged.
    """
    found = _read_report(out)
    _write(out / "scores.csv", SCORE_COLUMNS, found.lines)
    for name, path in draw(found, out / "figures").items():
        assert path == out / "figures" / name
    atomic_write(out / "tables.md", markdown(found, "figures", to_markdown))
    latex = "% \\usepackage{booktabs}\n\n"
    latex += "\n".join(to_latex(table) for _, group in tables(found) for table in group)
    atomic_write(out / "tables.tex", latex)
    return found


def write_page(page: Path, folders: Sequence[Path], notes: str = "") -> None:
    """Write one Markdown page of several benchmarks, their figures in a folder beside it.

    Args:
        page: the file.
        folders: of the benchmarks, in the page's order.
        notes: text to stand first, such as what was found on looking into the numbers.

    Raises:
        UsageError: a folder holds no benchmark.
    """
    parts = [notes] if notes else []
    for folder in folders:
        found = _read_report(folder)
        figures = page.parent / page.stem
        draw(found, figures, prefix=f"{found.about['name']}-")
        prefix = f"{page.stem}/{found.about['name']}-"
        parts.append(markdown(found, prefix, to_markdown, level=2))
    head = "# Results\n\nWritten by `crossvox benchmark --table`, no number by hand.\n"
    atomic_write(page, "\n".join([head, *parts]))


def _read_report(out: Path) -> Report:
    if not (out / "cases.csv").exists() or not (out / "suite.json").exists():
        raise UsageError(f"{out} holds no benchmark (no cases.csv and suite.json)")
    try:
        about = parse_json((out / "suite.json").read_text(encoding="utf-8"))
        cases = [_numbers(line) for line in _read(out / "cases.csv", CASE_COLUMNS)]
        lines = score_lines(cases, about["reference"])
    except (ValueError, KeyError) as error:
        raise DataError(f"{out}: damaged ({error}); run the benchmark again") from error
    return Report(about, lines, _read(out / "cells.csv", CELL_COLUMNS), cases)


def _case_lines(suite: Suite, cell: Cell) -> Iterable[Line]:
    for variant in cell.tests:
        place = _place(suite, cell) | {"variant": variant, "method": cell.row.method}
        for row in read_cases(cell.scores(variant) / "cases.csv"):
            yield place | {key: row[key] for key in COLUMNS}


def _cell_line(suite: Suite, cell: Cell, out: Path) -> Line:
    facts = read_facts(cell.run)
    trained = _spent(cell.trained)
    parts = [trained, *(_spent(cell.spent(v)) for v in cell.tests)]
    weights = (facts.get("weights") or {}).values()
    versions, git = facts.get("versions", {}), facts.get("git") or {}
    measured = [part for part in parts if part]
    done = cell.state == "done"
    return {
        **_place(suite, cell),
        "method": cell.row.method,
        "state": cell.state,
        "uses_unlabelled": "yes" if cell.facts.uses_unlabelled else "no",
        "pretrained_on": "; ".join(dict.fromkeys(w["saw"] for w in weights)),
        "adaptation": cell.facts.adaptation,
        "parameters": cell.facts.parameters,
        "train_seconds": _rounded(facts.get("timings", {}).get("fit")),
        "cpu_seconds": _rounded(sum(part["cpu"] for part in measured)) if done else "",
        "peak_mb": _rounded(max(part["megabytes"] for part in measured)) if done else "",
        "attempts": 1 + len(facts.get("resumed", [])) if facts else 0,
        "jobs": trained.get("jobs", ""),
        "threads": trained.get("threads", ""),
        "crossvox": versions.get("crossvox", ""),
        "torch": versions.get("torch", ""),
        "commit": git.get("commit", "") + ("+" if git.get("changed") else ""),
        "log": cell.log.relative_to(out.absolute()) if cell.log.exists() else "",
    }


def _own(row: MethodRow) -> Line:
    """What sets a row apart from the bare method."""
    kept = {key: value for key in ("only", "labelled") if (value := getattr(row, key))}
    return {"method": row.method, **row.options, **row.set, **kept}


def _place(suite: Suite, cell: Cell) -> Line:
    return {
        "suite": suite.name,
        "data": cell.dataset,
        "labels": cell.labels,
        "backbone": cell.backbone,
        "row": cell.row.label,
        "seed": cell.seed,
        "variant": PLAIN,
    }


def _spent(path: Path) -> Line:
    try:
        return parse_json(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); remove the cell's folder") from None


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 1)


def _numbers(line: Mapping[str, str]) -> Line:
    """A line of `cases.csv` with its numbers as such; an empty score is NaN."""
    parsed: Line = {}
    for key, text in line.items():
        if key in TEXTS:
            parsed[key] = text
        else:
            parsed[key] = int(text) if key in (*WHOLE, "seed") else float(text or "nan")
    return parsed


def _write(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for line in lines:
        values = (line[column] for column in columns)
        table.writerow("" if v is None or v != v else v for v in values)
    atomic_write(path, text.getvalue())


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lines = list(reader)
    if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise DataError(f"{path}: no column {', '.join(missing)}; run the benchmark again")
    return lines
