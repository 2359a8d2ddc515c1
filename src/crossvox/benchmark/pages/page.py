"""The Markdown pages of benchmarks: tables, what they say, charts, and how they were made."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossvox.benchmark.pages.charts import score_charts, write_charts
from crossvox.benchmark.pages.publication import write_paper_figures
from crossvox.benchmark.pages.tables import condition_text, overview_group, table_groups
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
EXPLAINED = f"## How to read the tables\n\n{LEGEND}\n\n{POLICY}\n\n{METHOD}"

WRITTEN = (
    "`crossvox benchmark --table` wrote all tables, charts and the sentences below tables; no "
    "number in them is by hand."
)
IN_DETAIL = "each class, distances, volumes, costs, adaptations, and how the runs were made"
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
    atomic_write(out / "tables.md", to_page(results, "figures/"))
    tables = [to_latex(table) for group in table_groups(results) for table in group.tables]
    atomic_write(out / "tables.tex", "% \\usepackage{booktabs}\n\n" + "\n".join(tables))


def write_page(page: Path, folders: Sequence[Path], notes: str = "") -> None:
    """Write a Markdown page with the overviews of several benchmarks, and a page about each.

    Args:
        page: the file. The folder of its name gets `SUITE.md`, the page about a benchmark, and
            `SUITE/` with its charts; of a suite's second benchmark `SUITE-2.md` and so on.
        folders: of the benchmarks, in the page's order.
        notes: Markdown to end the page with, such as what a closer look at the numbers showed.

    Raises:
        UsageError: a folder holds no benchmark.
        DataError: a file is damaged.
    """
    parts = [f"# Results\n\n{WRITTEN}{NOTED if notes else ''}\n"]
    times: Counter[str] = Counter()
    for folder in folders:
        results = read_results(folder)
        name = results.about["name"]
        times[name] += 1
        if times[name] > 1:
            name = f"{name}-{times[name]}"
        own = page.parent / page.stem / name
        write_charts(results, own)
        atomic_write(own.with_name(f"{name}.md"), to_page(results, f"{name}/"))
        parts.append(_summary(results, f"{page.stem}/{name}"))
    parts.append(f"{EXPLAINED}\n")
    atomic_write(page, "\n".join([*parts, *([notes] if notes else [])]))


def to_page(results: Results, charts: str) -> str:
    """Return the page about one benchmark.

    Args:
        results: the benchmark's.
        charts: the charts' folder, seen from the page, with a slash at its end.
    """
    parts = [f"# {_title(results)}", _warnings(results)]
    for group in table_groups(results):
        parts.append(f"## {_escaped(group.heading)}")
        parts += [to_markdown(table) for table in group.tables]
        parts.append("\n".join(f"* {_escaped(text)}" for text in group.sentences))
    parts += [f"![{chart.title}]({charts}{chart.file})" for chart in score_charts(results)]
    settings = "\n".join(f"* {line}" for line in run_settings(results))
    parts += ["## How these runs were made", f"    {command_line(results)}", settings, EXPLAINED]
    return _joined(parts)


def _summary(results: Results, place: str) -> str:
    """Return the overview of one benchmark, whose page and charts are at `place`."""
    parts = [f"## {_title(results)}", _warnings(results)]
    parts += [to_markdown(table) for table in overview_group(results).tables]
    charts = (chart for chart in score_charts(results) if chart.metric == "dice")
    parts += [f"![{chart.title}]({place}/{chart.file})" for chart in charts]
    parts.append(f"[All tables]({place}.md): {IN_DETAIL}.")
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _title(results: Results) -> str:
    return _escaped(results.about["title"] or results.about["name"])


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
