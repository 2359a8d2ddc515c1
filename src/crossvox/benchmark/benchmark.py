"""Run a suite of methods on data sets and write its results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from crossvox.benchmark.cells.grid import grid
from crossvox.benchmark.cells.runner import Launch, Share, run_cells
from crossvox.benchmark.pages.page import write_tables
from crossvox.benchmark.pages.pictures import draw_pictures, pictured_scans
from crossvox.benchmark.results.files import write_results
from crossvox.benchmark.suite import Suite
from crossvox.errors import CrossvoxError
from crossvox.utils.files import require_folder
from crossvox.workflows.messages import Echo


def benchmark(
    suite: Suite,
    out: Path,
    share: Share,
    *,
    launch: Launch | None = None,
    echo: Echo = print,
    console: Console | None = None,
) -> None:
    """Run the missing cells of a suite's grid, then write tables and pictures of all finished ones.

    Args:
        suite: a suite with its data sets.
        out: folder for everything; a second call continues where the first one ended.
        share: which part of the grid, and how many cells at once.
        launch: runs a command; None runs it as a process.
        echo: takes the lines for the user.
        console: shows the progress.

    Raises:
        UsageError, DataError: see `grid`; nothing is run then.
        CrossvoxError: cells of this share failed; all others are done and in the tables.
    """
    require_folder(out)
    cells = grid(suite, out)
    scans = pictured_scans(suite)
    # A row with a label count of its own is one run in the tables of all.
    runs = list({cell.folder: cell for cell in cells}.values())
    own = share.of(runs)
    try:
        run_cells(own, share, launch, echo, console)
    finally:
        write_results(suite, cells, out)
        write_tables(out)
    draw_pictures(suite, cells, scans, out / "pictures", echo)
    states = Counter(cell.state for cell in runs)
    counts = ", ".join(f"{states[name]} {name}" for name in ("done", "failed", "open"))
    echo(f"{len(runs)} cells: {counts}")
    echo(f"{out / 'tables.md'}, tables.tex, cases.csv, cells.csv, scores.csv, figures/")
    failed = [cell for cell in own if cell.state == "failed"]
    if failed:
        logs = ", ".join(str(cell.log) for cell in failed)
        raise CrossvoxError(f"{len(failed)} of {len(own)} cells failed, in no table; see {logs}")
