"""The Markdown page of a benchmark: tables, what they say, charts, and how they were made."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossvox.benchmark.pages.charts import score_charts, write_charts
from crossvox.benchmark.pages.publication import write_paper_figures
from crossvox.benchmark.pages.tables import condition_text, table_groups
from crossvox.benchmark.results.files import ROW, Results, read_results, write_scores_table
from crossvox.evaluation.comparison import METHOD
from crossvox.evaluation.metrics import POLICY
from crossvox.evaluation.scores import group_rows
from crossvox.utils.files import atomic_write
from crossvox.utils.text_table import to_latex, to_markdown

LEGEND = (
    "± is the standard deviation over seeds. The best row of a block is bold, the second "
    "underlined; a Dice of 0 is neither. Averages are means of the listed classes, and of the "
    "modalities. ASSD is the mean over the organs found. The missed and the falsely found ones are "
    "counted beside it, and only the rows with fewest of them can be best or second. “Clearly "
    "above” and “clearly below” mean that the 95 % interval of the difference excludes zero; "
    "nothing is clear of one seed, whose interval knows the scatter of the patients alone. A last "
    "gain is of the seeds that have both lengths."
)

WRITTEN = (
    "`crossvox benchmark --table` wrote all tables, charts and the sentences below tables; no "
    "number in them is by hand."
)
NOTED = " The text after [how to read them](#how-to-read-the-tables) was written by hand."


def write_tables(out: Path) -> None:
    """Write `scores.csv`, `tables.md`, `tables.tex` and `figures/` from the CSV files in `out`.

    Raises:
        UsageError: `out` holds no benchmark.
        DataError: a file is damaged.
    """
    results = read_results(out)
    write_scores_table(results, out)
    write_charts(results, out / "figures")
    write_paper_figures(results, out / "figures")
    page = to_page(results, "figures/")
    atomic_write(out / "tables.md", f"{page}\n{_explanation(2)}")
    tables = [to_latex(table) for group in table_groups(results) for table in group.tables]
    atomic_write(out / "tables.tex", "% \\usepackage{booktabs}\n\n" + "\n".join(tables))


def write_page(page: Path, folders: Sequence[Path], notes: str = "") -> None:
    """Write one Markdown page about several benchmarks, with their charts in a folder beside it.

    Args:
        page: the file; its charts are written to the folder of the same name.
        folders: of the benchmarks, in the page's order.
        notes: Markdown to end the page with, such as what a closer look at the numbers showed.

    Raises:
        UsageError: a folder holds no benchmark.
        DataError: a file is damaged.
    """
    parts = [f"# Results\n\n{WRITTEN}{NOTED if notes else ''}\n"]
    for folder in folders:
        results = read_results(folder)
        prefix = f"{results.about['name']}-"
        write_charts(results, page.parent / page.stem, prefix)
        parts.append(to_page(results, f"{page.stem}/{prefix}", level=2))
    parts.append(_explanation(2))
    atomic_write(page, "\n".join([*parts, *([notes] if notes else [])]))


def to_page(results: Results, charts: str, level: int = 1) -> str:
    """Return the part of the page that is about one benchmark.

    Args:
        results: the benchmark's.
        charts: what the charts' file names begin with, seen from the page.
        level: of the first heading.
    """
    about, mark = results.about, "#" * level
    parts = [f"{mark} {_escaped(about['title'] or about['name'])}", _warnings(results)]
    for group in table_groups(results):
        parts.append(f"{mark}# {_escaped(group.heading)}")
        parts += [to_markdown(table) for table in group.tables]
        parts.append("\n".join(f"* {_escaped(text)}" for text in group.sentences))
    parts += [f"![{chart.title}]({charts}{chart.file})" for chart in score_charts(results)]
    settings = "\n".join(f"* {line}" for line in run_settings(results))
    parts += [f"{mark}# How these runs were made", f"    {command_line(results)}", settings]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _explanation(level: int) -> str:
    return f"{'#' * level} How to read the tables\n\n{LEGEND}\n\n{POLICY}\n\n{METHOD}\n"


def _escaped(name: str) -> str:
    """Return a name of somebody's data or rows as Markdown that no browser takes for HTML."""
    return html.escape(name, quote=False)


def _warnings(results: Results) -> str:
    """Say what is missing from the tables."""
    parts = []
    done = [cell for cell in results.runs if cell["state"] == "done"]
    if len(done) < len(results.runs):
        parts.append(f"{len(done)} of {len(results.runs)} runs are done.")
    seeds = [len(own) for own in group_rows(done, *ROW).values()]
    if set(seeds) == {1}:
        parts.append("With one seed this is an observation, not a comparison.")
    elif 1 in seeds:
        parts.append("Rows without ± have one seed: observations, not comparisons.")
    text = " ".join(parts)
    if results.failed:
        text += "\n\nFailed, and in no mean:\n\n" + "\n".join(
            f"* {_escaped(cell['row'])}, {_escaped(cell['data'])}, "
            f"{condition_text(cell['labels'], cell['steps'])}, seed {cell['seed']}: `{cell['log']}`"
            for cell in results.failed
        )
    return text


def command_line(results: Results) -> str:
    """Return the command that runs the benchmark."""
    data = " ".join(f"--data {name}=…" for name in results.datasets)
    return f"crossvox benchmark benchmarks/{results.about['name']}.yaml {data} --out …"


def run_settings(results: Results) -> list[str]:
    """Return preset, seeds, settings, cost and versions, a line of Markdown each."""
    about = results.about
    seeds = _listed(about["seeds"])
    for steps, fewer in about["fewer_seeds"].items():
        seeds += f" ({steps} steps: {_listed(fewer)})"
    drawn = " (which also draw the labelled cases)" if about["label_draw"] == "seed" else ""
    lines = [
        f"Preset `{about['preset']}`, seeds {seeds}{drawn}, the {about['checkpoint']} checkpoint, "
        f"split `{about['split']}`."
    ]
    if about["settings"]:
        lines.append(f"All runs: {_nested(about['settings'])}.")
    if results.seen:
        names = ", ".join(_escaped(f"{case} ({data})") for data, case in results.seen)
        lines.append(f"Left out of all means, because a run learnt from their labels: {names}.")
    if start := about["start"]:
        lines.append(
            f"Every row begins from {start['steps']} steps of `{start['method']}` with the same "
            "data, labels and seed, unless the column *adaptation* names another start. Times "
            "count both."
        )
    rows = ((label, own) for label, own in about["rows"].items() if len(own) > 1)
    lines += [f"{_escaped(label)}: {_nested(own)}." for label, own in rows]
    done = [cell for cell in results.runs if cell["state"] == "done"]
    versions = dict.fromkeys(
        f"crossvox {cell['crossvox']}{_commit(cell['commit'])}, torch {cell['torch']}"
        for cell in done
    )
    if versions:
        hours = sum(float(cell["cpu_seconds"] or 0) for cell in done) / 3600
        mixed = "different versions: " if len(versions) > 1 else ""
        lines.append(f"{hours:.1f} core-hours in all; {mixed}{'; '.join(versions)}.")
    return lines


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)


def _nested(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return nested settings as `a.b=1`, separated by commas."""
    parts = [
        _nested(value, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else f"`{prefix}{key}={value}`"
        for key, value in values.items()
    ]
    return ", ".join(parts)


def _commit(text: str) -> str:
    changed = " and changes" if text.endswith("+") else ""
    return f" (commit {text[:10]}{changed})" if text else ""
