"""The sections of a page about a benchmark: its own tables, sentences and charts."""

from __future__ import annotations

from crossvox.benchmark.pages.charts import score_charts
from crossvox.benchmark.pages.page import LEGEND, command_line, run_settings
from crossvox.benchmark.pages.tables import table_groups
from crossvox.benchmark.results.files import CELL_COLUMNS, Results
from crossvox.evaluation.comparison import METHOD
from crossvox.evaluation.metrics import POLICY
from crossvox.report.page import Block, Bullets, Charts, Code, Section
from crossvox.utils.text_table import TextTable


def benchmark_sections(results: Results) -> list[Section]:
    """Return the sections of a benchmark's page."""
    cells = [dict(cell) for cell in results.cells]
    unfinished = [cell for cell in cells if cell["state"] != "done"]
    sections = []
    if unfinished:
        title, text = f"Runs without a result: {len(unfinished)}", "They are in none of the tables."
        sections.append(Section(title, [_cell_table(unfinished)], text))
    if not results.cases:
        sections.append(Section("Scores", [], "No run has been scored yet."))
    groups = [Section(g.heading, [*g.tables, Bullets(g.sentences)]) for g in table_groups(results)]
    sections += groups
    if charts := {chart.title: chart.figure(columns=1) for chart in score_charts(results)}:
        text = "Mean of the classes ± standard deviation over seeds."
        sections.append(Section("Charts", [Charts(charts)], text))
    sections.append(Section("How to read the tables", [Bullets([LEGEND, POLICY, METHOD])]))
    settings = Bullets([line.replace("`", "") for line in run_settings(results)])
    made: list[Block] = [Code("Command", command_line(results)), settings, _cell_table(cells)]
    return [*sections, Section("How these runs were made", made)]


def _cell_table(cells: list[dict[str, str]]) -> TextTable:
    """Return the lines of `cells.csv`, without the columns that are empty."""
    names = [name for name in CELL_COLUMNS if any(cell[name] for cell in cells)]
    rows = [[cell[name] for name in names] for cell in cells]
    return TextTable("", names, rows, left=len(names))
