"""Tables of scores: CSV and JSON files, and summaries of a run."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from crossvox.batch import FUSED
from crossvox.errors import DataError, UsageError
from crossvox.evaluation.metrics import POLICY, averaged
from crossvox.utils.csv_tables import csv_text, read_table
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_path

DECIMALS = {"dice": 3, "assd_mm": 2}
"""Averaged metrics → decimals shown."""

TITLES = {"dice": "Dice", "assd_mm": "ASSD (mm)"}
"""Names of the metrics in figures and tables."""

COUNTS = ("n_missed", "n_false", "n_both_empty")
WHOLE = (*COUNTS, "voxels", "seen", "seed")
NAMES = ("case", "modality", "class")
COLUMNS = (
    *NAMES, *DECIMALS, *COUNTS, "volume_truth_ml", "volume_prediction_ml", "voxels", "seen"
)  # fmt: skip
"""Columns of `cases.csv`. `seen` is 1 if the model learnt from a label of that case, else 0."""

AVERAGES = (
    "sd: sample standard deviation over cases. "
    "ASSD: over the organs found, those missed or falsely found are counted. "
    "average: mean of the listed classes' means. overall: mean of the modalities' averages, "
    "without that of the fused label map."
)

Row = Mapping[str, Any]
Summary = dict[str, Any]


def write_scores(
    folder: Path | str, rows: Sequence[Row], run: Row | None = None, include_seen: bool = False
) -> Summary:
    """Write `cases.csv` and `summary.json` into a folder, and return the summary.

    A summary never lies beside cases of another evaluation.

    Args:
        folder: where to write. An undefined score is an empty cell of `cases.csv`.
        rows: one per case, modality and class, with exactly the keys `COLUMNS`: those of
            `crossvox.evaluation.metrics.score_case`, `case`, `modality` and `seen`.
        run, include_seen: see `summarise`.

    Raises:
        ValueError: a row has other keys.
        UsageError: there are no rows.
    """
    table, summary = _table(rows), summarise(rows, run, include_seen)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    place = Path(folder) / "summary.json"
    # Leaving the block puts cases.csv in place before summary.json.
    with atomic_path(place) as whole, atomic_path(Path(folder) / "cases.csv") as cases:
        cases.write_bytes(table.encode())
        whole.write_bytes(f"{text}\n".encode())
        place.unlink(missing_ok=True)
    return summary


def read_facts_of_scores(path: Path) -> dict[str, Any]:
    """Return `summary["run"]` of a `summary.json`; raise `DataError` for any other file."""
    try:
        return dict(parse_json(path.read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no readable summary of scores ({error})") from error


def first_difference(found: Row, asked: Row) -> str | None:
    """Return the first fact in which two evaluations differ, as text; None if they agree."""
    for name in [*asked, *(name for name in found if name not in asked)]:
        if found.get(name) != asked.get(name):
            return f"scores of {name} {found.get(name)}, asked for {asked.get(name)}"
    return None


def require_same_scores(folder: Path, run: Row) -> None:
    """Refuse to replace the scores of another evaluation.

    Args:
        folder: where scores are to be written.
        run: what will be scored, see `summarise`.

    Raises:
        UsageError: the folder holds scores of something else.
        DataError: its `summary.json` or `cases.csv` holds no scores.
    """
    if (folder / "cases.csv").exists():
        read_table(folder / "cases.csv", COLUMNS)
    if (folder / "summary.json").exists():
        found = read_facts_of_scores(folder / "summary.json")
        if difference := first_difference(found, run):
            raise UsageError(f"{folder / 'summary.json'}: {difference}; give another --out")


def _table(rows: Iterable[Row]) -> str:
    lines = []
    for row in rows:
        if row.keys() != set(COLUMNS):
            raise ValueError(f"a row of scores has {list(row)}; expected {list(COLUMNS)}")
        lines.append([row[key] for key in COLUMNS])
    return csv_text(COLUMNS, *lines)


def read_cases(path: Path | str) -> list[dict[str, Any]]:
    """Read a `cases.csv` that `write_scores` wrote; empty scores become NaN.

    Raises:
        DataError: the file cannot be read, lacks a column or holds text where a number belongs.
    """
    return read_scores(path, COLUMNS, NAMES)


def read_scores(
    path: Path | str, columns: Sequence[str], texts: Collection[str]
) -> list[dict[str, Any]]:
    """Read these columns of a table; those that are no `texts` hold numbers, empty ones NaN.

    Raises:
        DataError: see `read_cases`.
    """
    lines = []
    for number, row in enumerate(read_table(path, columns), start=1):
        line: dict[str, Any] = {}
        for key in columns:
            text = row[key]
            try:
                if key in texts:
                    line[key] = text
                else:
                    line[key] = int(text) if key in WHOLE else float(text or "nan")
            except (TypeError, ValueError) as error:
                where = f"{path}, row {number}"
                raise DataError(f"{where}: {key} is {text!r}, expected a number") from error
        lines.append(line)
    return lines


def unseen(rows: Iterable[Row], include_seen: bool = False) -> list[Row]:
    """Return the rows that enter means: those of cases that the model has not learnt from."""
    return [row for row in rows if include_seen or not row["seen"]]


def summarise(rows: Sequence[Row], run: Row | None = None, include_seen: bool = False) -> Summary:
    """Compute mean and standard deviation over cases per modality and class, and averages.

    >>> summary = summarise(rows, {"method": "cmc", "seed": 0})
    >>> summary["modalities"]["ct"]["classes"]["liver"]["dice"]["mean"]

    Args:
        rows: see `write_scores`; classes and modalities keep the order of their first row.
        run: describes what was scored, kept as `summary["run"]`.
        include_seen: let cases that the model learnt from enter the means, which they flatter.

    Returns:
        `{"policy", "averages", "run", "seen": {"cases": ids of those learnt from, "of": number of
        all, "included"}, "modalities": {name: {"classes": {name: cell}, "average": cell}},
        "overall": cell}`. A cell is `{"n": number of values in the mean of Dice, "n_missed",
        "n_false", "n_both_empty", "dice": {"mean", "sd"}, "assd_mm": {"mean", "sd"}}`, with None
        for undefined values. Missed and falsely found organs are left out of ASSD. The average's
        `of` lists the classes in it.

    Raises:
        UsageError: there are no rows.
    """
    if not rows:
        raise UsageError("nothing to score: none of the chosen cases has a label to compare with")
    modalities = {}
    rows = [{**row, **{metric: averaged(row, metric) for metric in DECIMALS}} for row in rows]
    for modality in _unique(row["modality"] for row in rows):
        own = [row for row in rows if row["modality"] == modality]
        counted = unseen(own, include_seen)
        classes = {
            name: _cell([row for row in counted if row["class"] == name])
            for name in _unique(row["class"] for row in own)
        }
        scored = [name for name, cell in classes.items() if cell["n"]]
        average = _cell([_means(cell) for cell in classes.values()], spread=False)
        modalities[modality] = {"classes": classes, "average": {"of": scored, **average}}
    averages = [part["average"] for name, part in modalities.items() if not is_fused(name)]
    overall = _cell([_means(average) for average in averages], spread=False)
    return {
        "policy": POLICY,
        "averages": AVERAGES,
        "run": dict(run or {}),
        "seen": {
            "cases": _unique(row["case"] for row in rows if row["seen"]),
            "of": len(_unique(row["case"] for row in rows)),
            "included": include_seen,
        },
        "modalities": modalities,
        "overall": overall,
    }


def seen_note(summary: Summary, most: int = 5) -> str:
    """Return a sentence on the cases that a model learnt from; empty if there are none.

    Args:
        summary: from `summarise`.
        most: number of cases to name.
    """
    seen, total, included = (summary["seen"][key] for key in ("cases", "of", "included"))
    if not seen:
        return ""
    names = ", ".join(seen[:most]) + " …" * (len(seen) > most)
    note = f"{len(seen)} of {total} cases were learnt from with their labels ({names}): "
    if included:
        return f"{note}the means include them and flatter the model."
    if len(seen) == total:
        return (
            f"{note}no mean is left. Score other cases, or these by crossvox train "
            "--cross-validate; --include-seen averages them as they are."
        )
    return f"{note}the means leave them out; --include-seen takes them in."


def terminal_table(summary: Summary) -> Table:
    """Return the summary of one run as a table for the terminal."""
    shown = Table(caption=AVERAGES, caption_justify="left", box=box.SIMPLE, padding=0)
    for heading in ("modality", "class"):
        shown.add_column(heading, overflow="fold")
    for heading in ("Dice", "ASSD mm", "scans", "missed", "false", "empty"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for modality, part in summary["modalities"].items():
        for name, cell in part["classes"].items():
            counts = (str(cell[key]) for key in ("n", *COUNTS))
            shown.add_row(escape(modality), escape(name), *_shown(cell), *counts)
        average = part["average"]
        lost = (str(average[key]) for key in COUNTS[:2])
        shown.add_row(escape(modality), "average", *_shown(average), "", *lost, style="bold")
        shown.add_section()
    lost = (str(summary["overall"][key]) for key in COUNTS[:2])
    shown.add_row("overall", "", *_shown(summary["overall"]), "", *lost, style="bold")
    return shown


def _cell(parts: Sequence[Row], spread: bool = True) -> Summary:
    """Return the means (and standard deviations) of the parts' metrics and their summed counts."""
    values = {
        metric: [float(part[metric]) for part in parts if not _is_missing(part[metric])]
        for metric in DECIMALS
    }
    cell: Summary = {"n": len(values["dice"])}
    cell |= {key: sum(int(part[key]) for part in parts) for key in COUNTS}
    for metric, numbers in values.items():
        cell[metric] = {
            "mean": statistics.fmean(numbers) if numbers else None,
            "sd": statistics.stdev(numbers) if spread and len(numbers) > 1 else None,
        }
    return cell


def _means(cell: Row) -> Summary:
    """Return a cell as one value of a larger cell: its means stand for it."""
    return {key: cell[key] for key in COUNTS} | {key: cell[key]["mean"] for key in DECIMALS}


def _shown(cell: Row) -> list[str]:
    return [plus_minus(cell[metric], decimals) for metric, decimals in DECIMALS.items()]


def fused_on(modality: str) -> str:
    """Return the name of a fused map's scores against one modality's label, of several."""
    return f"{FUSED} on {modality}"


def is_fused(name: str) -> bool:
    """Return whether a name in the column `modality` is that of a fused map's scores."""
    return name == FUSED or name.startswith(f"{FUSED} on ")


def group_rows(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by their values of `keys`, in the order in which these first occur."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def plus_minus(value: Row, decimals: int) -> str:
    """Return `mean ± sd` as text; the mean alone without an sd, a dash without a mean."""
    if value["mean"] is None:
        return "–"
    spread = "" if value["sd"] is None else f" ± {value['sd']:.{decimals}f}"
    return f"{value['mean']:.{decimals}f}{spread}"


def signed(value: float, decimals: int) -> str:
    """Return a difference with its sign; one that rounds to nothing has a plus.

    >>> signed(-0.0001, 3)
    '+0.000'
    """
    # + 0.0 turns −0 into 0.
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
