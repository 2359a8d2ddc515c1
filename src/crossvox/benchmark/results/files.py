"""The results of a benchmark: from its cells to CSV files, and back for tables and charts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossvox.benchmark.cells.cell import PLAIN, Cell
from crossvox.benchmark.results.scores import CASE_COLUMNS, SCORE_COLUMNS, Line, score_lines
from crossvox.benchmark.suite import MethodRow, Suite
from crossvox.errors import DataError, UsageError
from crossvox.evaluation.scores import COLUMNS, NAMES, read_cases, read_scores
from crossvox.training.record import read_facts
from crossvox.utils.csv_tables import csv_text, read_table
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write

CELL_COLUMNS = (
    "suite", "data", "labels", "steps", "backbone", "row", "method", "seed", "state",
    "uses_unlabelled", "pretrained_on", "adaptation", "parameters", "train_seconds",
    "cpu_seconds", "peak_mb", "attempts", "jobs", "threads", "crossvox", "torch", "commit", "log",
)  # fmt: skip
"""Columns of `cells.csv`, a line per run and label count. `cpu_seconds` are those of all attempts
whose end the benchmark saw, with scoring. Both times count the run that a cell begins from."""

ROW = ("data", "labels", "steps", "backbone", "row")
RUN = (*ROW, "seed")
"""Columns that tell a row of a table, and a run, from all others."""

FACTS = (
    "name", "title", "preset", "split", "checkpoint", "reference", "label_draw", "seeds",
    "fewer_seeds", "settings", "start", "rows",
)  # fmt: skip
"""Keys of `suite.json`."""

TEXTS = ("suite", "data", "labels", "steps", "backbone", "variant", "row", "method", *NAMES)
"""The columns of `cases.csv` that hold text."""


@dataclass(frozen=True)
class Results:
    """The measurements of a benchmark.

    Attributes:
        about: the suite, by the keys `FACTS`.
        scores: mappings with the keys `SCORE_COLUMNS`.
        cells: mappings with the keys `CELL_COLUMNS`.
        cases: mappings with the keys `CASE_COLUMNS`, without `seen` ones.
        seen: (data set, case) of each case that some run of the benchmark learnt from.
    """

    about: Mapping[str, Any]
    scores: Sequence[Line]
    cells: Sequence[Line]
    cases: Sequence[Line]
    seen: Sequence[tuple[str, str]] = ()

    @property
    def failed(self) -> list[Line]:
        """The cells that ended with an error."""
        return [cell for cell in self.cells if cell["state"] == "failed"]

    @property
    def runs(self) -> list[Line]:
        """`cells` without the repetitions of runs that stand in several tables."""
        return list({cell["log"] or i: cell for i, cell in enumerate(self.cells)}.values())

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, in the suite's order."""
        return list(dict.fromkeys(cell["data"] for cell in self.cells))

    def bounds(self, labels: str) -> set[str]:
        """Return the rows that were trained on other labels than those of a table for `labels`."""
        rows: Mapping[str, Mapping[str, Any]] = self.about["rows"]
        return {row for row, own in rows.items() if own.get("labelled", labels) != labels}


def write_results(suite: Suite, cells: Sequence[Cell], out: Path) -> None:
    """Write `suite.json`, `cases.csv` and `cells.csv` from the files of the cells.

    `cases.csv` holds the scores of those cells that are done with all of their tests.
    """
    order = [list(suite.data), list(suite.labels), suite.methods, suite.seeds]

    def place(cell: Cell) -> tuple[int, ...]:
        own = (cell.dataset, cell.labels, cell.row, cell.seed)
        where = [names.index(name) for names, name in zip(order, own, strict=True)]
        return (*where[:2], cell.steps, *where[2:])

    cells = sorted(cells, key=place)
    cases = [line for cell in cells if cell.state == "done" for line in _case_lines(suite, cell)]
    write_table(out / "cases.csv", CASE_COLUMNS, cases)
    write_table(out / "cells.csv", CELL_COLUMNS, [_cell_line(suite, cell, out) for cell in cells])
    keys = ("name", "title", "preset", "split", "checkpoint", "reference", "label_draw")
    about = {
        **{key: getattr(suite, key) for key in keys},
        "seeds": list(suite.seeds),
        "fewer_seeds": {n: own for n, own in suite.fewer_seeds.items() if n in suite.steps},
        "settings": suite.set,
        "start": suite.start and dataclasses.asdict(suite.start),
        "rows": {row.label: _changed_settings(row) for row in suite.methods},
    }
    atomic_write(out / "suite.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def write_scores_table(results: Results, out: Path) -> None:
    """Write `scores.csv`."""
    write_table(out / "scores.csv", SCORE_COLUMNS, results.scores)


def holds_benchmark(path: Path) -> bool:
    """Return whether a folder is that of a benchmark."""
    return (path / "cells.csv").exists()


def read_results(out: Path) -> Results:
    """Read the files of `write_results`.

    Raises:
        UsageError: `out` holds no benchmark.
        DataError: a file is damaged.
    """
    about = _read_about(out)
    cells = read_table(out / "cells.csv", CELL_COLUMNS)
    try:
        lines = read_scores(out / "cases.csv", CASE_COLUMNS, TEXTS)
        # All rows of a table are compared on the same cases.
        seen = list(dict.fromkeys((line["data"], line["case"]) for line in lines if line["seen"]))
        cases = [line for line in lines if (line["data"], line["case"]) not in seen]
        scores = score_lines(cases, about["reference"])
    except (ValueError, KeyError) as error:
        raise damaged(out, error) from error
    return Results(about, scores, cells, cases, seen)


def _read_about(out: Path) -> dict[str, Any]:
    """Read the facts of a benchmark's suite; see `Results.about` and `read_results`."""
    if not (out / "cases.csv").exists() or not (out / "suite.json").exists():
        raise UsageError(f"{out} holds no benchmark (no cases.csv and suite.json)")
    try:
        about = parse_json((out / "suite.json").read_text(encoding="utf-8"))
        facts = {key: about[key] for key in FACTS}
        return {**facts, "rows": dict(facts["rows"])}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(out, error) from error


def damaged(out: Path, error: object) -> DataError:
    """Return the error of a folder whose files cannot be those of a benchmark."""
    return DataError(f"{out}: damaged ({error}); run the benchmark again")


def _case_lines(suite: Suite, cell: Cell) -> Iterable[Line]:
    for variant in cell.tests:
        place = _place(suite, cell) | {"variant": variant, "method": cell.row.method}
        for row in read_cases(cell.scores(variant) / "cases.csv"):
            yield place | {key: row[key] for key in COLUMNS}


def _cell_line(suite: Suite, cell: Cell, out: Path) -> dict[str, Any]:
    facts = read_facts(cell.run)
    trained = _read_cost(cell.training_cost)
    tested = (_read_cost(cell.test_cost(variant)) for variant in cell.tests)
    runs = [cell] if cell.start is None else [cell.start, cell]
    started = [_read_cost(run.training_cost) for run in runs[:-1]]
    costs = [cost for cost in (*started, trained, *tested) if cost]
    fitted = [read_facts(run.run).get("timings", {}).get("fit") for run in runs]
    weights = (facts.get("weights") or {}).values()
    versions, git = facts.get("versions", {}), facts.get("git") or {}
    done = cell.state == "done"
    return {
        **_place(suite, cell),
        "method": cell.row.method,
        "state": cell.state,
        "uses_unlabelled": "yes" if cell.info.uses_unlabelled else "no",
        "pretrained_on": "; ".join(dict.fromkeys(w["saw"] for w in weights)),
        "adaptation": cell.info.adaptation,
        "parameters": cell.info.parameters,
        "train_seconds": "" if None in fitted else _rounded(sum(fitted)),
        "cpu_seconds": _rounded(sum(cost["cpu"] for cost in costs)) if done else "",
        "peak_mb": _rounded(max(cost["megabytes"] for cost in costs)) if done else "",
        "attempts": 1 + len(facts.get("resumed", [])) if facts else 0,
        "jobs": trained.get("jobs", ""),
        "threads": trained.get("threads", ""),
        "crossvox": versions.get("crossvox", ""),
        "torch": versions.get("torch", ""),
        "commit": git.get("commit", "") + ("+" if git.get("changed") else ""),
        "log": cell.log.relative_to(out.absolute()) if cell.log.exists() else "",
    }


def _changed_settings(row: MethodRow) -> dict[str, Any]:
    """Return the settings of a row that are not the method's defaults."""
    kept = {key: value for key in ("only", "labelled") if (value := getattr(row, key))}
    return {"method": row.method, **row.options, **row.set, **kept}


def _place(suite: Suite, cell: Cell) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "data": cell.dataset,
        "labels": cell.labels,
        "steps": cell.steps_text,
        "backbone": cell.backbone,
        "row": cell.row.label,
        "seed": cell.seed,
        "variant": PLAIN,
    }


def _read_cost(path: Path) -> dict[str, Any]:
    try:
        return parse_json(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); remove the cell's folder") from None


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 1)


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Line]) -> None:
    """Write lines as a CSV file; a value that does not exist is an empty cell."""
    cells = ([line[column] for column in columns] for line in lines)
    atomic_write(path, csv_text(columns, *cells))
