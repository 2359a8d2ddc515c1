"""What a benchmark's tables and figures are, and the page that they stand on."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossvox.benchmark.charts import Point, score_lines_chart
from crossvox.benchmark.reading import reading
from crossvox.benchmark.scores import AVERAGE, OVERALL
from crossvox.benchmark.tables import (
    TITLES,
    change_table,
    cost_table,
    overview_table,
    score_table,
    variant_table,
    volume_table,
)
from crossvox.benchmark.text_table import TextTable
from crossvox.evaluation.comparison import METHOD
from crossvox.evaluation.metrics import POLICY
from crossvox.evaluation.scores import DECIMALS

Line = Mapping[str, Any]

AXES = {
    "labels": "labelled scans per modality",
    "shift": "imposed shift (mm)",
    "rotate": "imposed rotation (degrees)",
    "given": "modalities given at test",
}
"""What may vary → its name and unit on an axis."""


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        about: the suite's name, title, preset, split, checkpoint, seeds and reference row.
        lines: mappings with the keys `SCORE_COLUMNS`.
        cells: mappings with the keys `CELL_COLUMNS`.
        cases: mappings with the keys `CASE_COLUMNS`.
    """

    about: Mapping[str, Any]
    lines: Sequence[Line]
    cells: Sequence[Line]
    cases: Sequence[Line]

    @property
    def failed(self) -> list[Line]:
        """The cells that ended with an error."""
        return [cell for cell in self.cells if cell["state"] == "failed"]

    def bounds(self, labels: str) -> set[str]:
        """The rows whose runs have other labels than those of a table for so many."""
        rows: Mapping[str, Mapping[str, Any]] = self.about["rows"]
        return {row for row, own in rows.items() if own.get("labelled", labels) != labels}

    @property
    def datasets(self) -> list[str]:
        """Their names, in the suite's order."""
        return list(dict.fromkeys(cell["data"] for cell in self.cells))


def tables(report: Report) -> Iterator[tuple[str, list[TextTable]]]:
    """Heading → tables, for each data set, backbone and label count, and each one's costs."""
    for heading, found, _ in sections(report):
        yield heading, found


def sections(report: Report) -> Iterator[tuple[str, list[TextTable], list[str]]]:
    """As `tables`, each with what its tables say in sentences."""
    reference = report.about["reference"]
    places = dict.fromkeys((x["backbone"], x["labels"]) for x in report.lines)
    if len(report.datasets) > 1:
        whole = [
            overview_table(
                [x for x in report.lines if (x["backbone"], x["labels"]) == place],
                f"{_count(place[1])}, {place[0]}",
                report.bounds(place[1]),
            )
            for place in places
        ]
        yield "All data sets", whole, []
    for data in report.datasets:
        own = [line for line in report.lines if line["data"] == data]
        for backbone, labels in dict.fromkeys((x["backbone"], x["labels"]) for x in own):
            group = [x for x in own if (x["backbone"], x["labels"]) == (backbone, labels)]
            plain = [line for line in group if not line["variant"]]
            what, bounds = f"{data}, {_count(labels)}, {backbone}", report.bounds(labels)
            found = [score_table(plain, metric, reference, what, bounds) for metric in DECIMALS]
            place = (data, backbone, labels, "")
            found.append(volume_table([x for x in report.cases if _group(x) == place], what))
            if len(plain) < len(group):
                found += [variant_table(group, metric, what, bounds) for metric in DECIMALS]
                tested = [x for x in report.cases if _group(x)[:3] == place[:3]]
                found.append(change_table(tested, "dice", what))
            rivals = [line for line in group if line["row"] not in bounds]
            yield what, found, reading(rivals, reference)
        cells = [cell for cell in report.cells if cell["data"] == data]
        for backbone in dict.fromkeys(cell["backbone"] for cell in cells):
            part = [cell for cell in cells if cell["backbone"] == backbone]
            caption = f"What the rows use and take: {data}, {backbone}; means over finished runs"
            yield f"{data}, {backbone}: costs", [cost_table(part, caption)], []


def _group(case: Line) -> tuple[str, ...]:
    return case["data"], case["backbone"], case["labels"], case["variant"]


def draw(report: Report, folder: Path, prefix: str = "") -> dict[str, Path]:
    """Write the figures that the suite has a varied quantity for; file name → file."""
    written = {}
    for name, (data, backbone, axis, metric) in _figures(report).items():
        panels: dict[str, dict[str, list[Point]]] = {}
        for line in report.lines:
            if (line["data"], line["backbone"], line["metric"]) != (data, backbone, metric):
                continue
            x = _place(line, axis)
            if x is None or line["class"] != AVERAGE or line["mean"] is None:
                continue
            panel = "mean of modalities" if line["modality"] == OVERALL else line["modality"]
            points = panels.setdefault(panel, {}).setdefault(line["row"], [])
            points.append((x, line["mean"], line["sd"]))
        for panel_rows in panels.values():
            for points in panel_rows.values():
                if not any(isinstance(point[0], str) for point in points):
                    points.sort(key=lambda point: point[0])
        panels = {panel: rows for panel, rows in panels.items() if _varies(rows)}
        path = folder / f"{prefix}{name}"
        title = f"{data}, {backbone}; mean of the classes, ± sd over seeds"
        score_lines_chart(path, panels, AXES[axis], TITLES[metric], title)
        written[name] = path
    return written


def _varies(rows: Mapping[str, Sequence[Point]]) -> bool:
    """Whether a panel has more than one place on its axis, as no mean over modalities has that
    are tested one by one."""
    return len({point[0] for points in rows.values() for point in points}) > 1


def markdown(
    report: Report, figures: str, render: Callable[[TextTable], str], level: int = 1
) -> str:
    """The page: how it was made, what failed, the tables, the figures.

    Args:
        report: the benchmark.
        figures: what the files of the figures begin with, seen from the page.
        render: makes Markdown of a table.
        level: of the first heading.
    """
    about = report.about
    mark = "#" * level
    parts = [f"{mark} {_text(about['title'] or about['name'])}", _made(report), _warnings(report)]
    parts.append(f"{POLICY} {METHOD}")
    for heading, found, said in sections(report):
        parts.append(f"{mark}# {_text(heading)}")
        parts.append("\n".join(f"* {_text(sentence)}" for sentence in said))
        parts += [render(table) for table in found]
    join = "" if figures.endswith("-") else "/"
    for name, (data, _, axis, metric) in _figures(report).items():
        parts.append(f"![{TITLES[metric]} against {AXES[axis]}, {data}]({figures}{join}{name})")
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _text(name: str) -> str:
    """Text that names somebody else's data or rows, as Markdown that no browser takes for HTML."""
    return html.escape(name, quote=False)


def _made(report: Report) -> str:
    about = report.about
    seeds = ", ".join(str(seed) for seed in about["seeds"])
    draw = " (which also draw the labelled cases)" if about["label_draw"] == "seed" else ""
    data = " ".join(f"--data {name}=…" for name in report.datasets)
    command = f"crossvox benchmark benchmarks/{about['name']}.yaml {data} --out …"
    lines = [
        f"    {command}",
        f"Preset `{about['preset']}`, seeds {seeds}{draw}, the {about['checkpoint']} checkpoint, "
        f"split `{about['split']}`. ± is the standard deviation over seeds; the best of a block is "
        "bold, the second underlined. Averages are the mean of the listed classes, and of the "
        "modalities.",
    ]
    settings = [f"All runs: {_written(about['settings'])}."] if about["settings"] else []
    settings += [
        f"{label}: {_written(own)}." for label, own in about["rows"].items() if len(own) > 1
    ]
    if settings:
        lines.append("\n".join(f"* {line}" for line in settings))
    if len(about["seeds"]) == 1:
        lines.append("With one seed this is an observation, not a comparison.")
    return "\n\n".join(lines)


def _written(values: Mapping[str, Any], prefix: str = "") -> str:
    """Nested settings as `a.b=1`, one after the other."""
    parts = [
        _written(value, f"{prefix}{key}.") if isinstance(value, Mapping) else
        f"`{prefix}{key}={value}`"
        for key, value in values.items()
    ]  # fmt: skip
    return ", ".join(parts)


def _warnings(report: Report) -> str:
    lines = []
    done = [cell for cell in report.cells if cell["state"] == "done"]
    if len(done) < len(report.cells):
        lines.append(f"{len(done)} of {len(report.cells)} runs are done.")
    hours = sum(float(cell["cpu_seconds"] or 0) for cell in done) / 3600
    if hours:
        lines.append(f"All runs together took {hours:.1f} core-hours.")
    versions = dict.fromkeys(
        f"crossvox {cell['crossvox']}{_commit(cell['commit'])}, torch {cell['torch']}"
        for cell in done
    )
    if versions:
        mixed = "Runs of different versions are mixed: " if len(versions) > 1 else "Made with "
        lines.append(mixed + "; ".join(versions) + ".")
    text = " ".join(lines)
    if report.failed:
        text += "\n\nFailed, and in no mean:\n\n" + "\n".join(
            f"* {cell['row']}, {cell['data']}, {_count(cell['labels'])}, seed {cell['seed']}: "
            f"`{cell['log']}`"
            for cell in report.failed
        )
    return text


def _figures(report: Report) -> dict[str, tuple[str, str, str, str]]:
    """File name → (data set, backbone, what varies, metric)."""
    found = {}
    for data in report.datasets:
        own = [line for line in report.lines if line["data"] == data]
        for backbone in dict.fromkeys(line["backbone"] for line in own):
            part = [line for line in own if line["backbone"] == backbone]
            axes = [v.split("=")[0] for v in dict.fromkeys(x["variant"] for x in part) if v]
            if len({line["labels"] for line in part}) > 1:
                axes.insert(0, "labels")
            for axis in dict.fromkeys(axes):
                for metric in DECIMALS:
                    name = f"{data}-{backbone}-{metric.split('_')[0]}-{axis}.png"
                    found[name] = (data, backbone, axis, metric)
    return found


def _place(line: Line, axis: str) -> float | str | None:
    """Where a line lies on an axis; None if it is not on it."""
    if axis == "labels":
        return None if line["variant"] else line["labels"]
    kind, _, amount = line["variant"].partition("=")
    if axis == "given":
        return amount if kind == "given" else "all" if not kind else None
    return float(amount) if kind == axis else 0.0 if not kind else None


def _commit(text: str) -> str:
    changed = " and changes" if text.endswith("+") else ""
    return f" (commit {text[:10]}{changed})" if text else ""


def _count(labels: str) -> str:
    return "all labels" if labels == "all" else f"labels: {labels}"
