"""Run a suite of methods on data sets, and write what it found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from crossvox.benchmark.grid import Parse, grid
from crossvox.benchmark.pictures import draw_pictures, subjects
from crossvox.benchmark.report import collect, report
from crossvox.benchmark.runner import Launch, Share, run_cells
from crossvox.benchmark.suite import Suite
from crossvox.errors import CrossvoxError
from crossvox.utils.files import require_folder
from crossvox.workflows.prepare import Echo


def benchmark(
    suite: Suite,
    out: Path,
    share: Share,
    parse: Parse,
    *,
    launch: Launch | None = None,
    echo: Echo = print,
    console: Console | None = None,
) -> None:
    """Run what is missing of a suite's grid, then write tables and pictures of all that is done.

    Args:
        suite: with its data sets.
        out: folder for everything; a second call goes on where the first one ended.
        share: which part of the grid, and how many cells at once.
        parse: reads a run's YAML file.
        launch: runs a command; None = as a process.
        echo: takes the lines for the user.
        console: for the progress.

    Raises:
        UsageError, DataError: as `grid`; nothing is run then.
        CrossvoxError: cells of this share failed; all others are done, and in the tables.
    """
    require_folder(out)
    cells = grid(suite, out, parse)
    scans = subjects(suite)
    own = share.of(cells)
    try:
        run_cells(own, share, launch, echo, console)
    finally:
        collect(suite, cells, out)
        report(out)
    draw_pictures(suite, cells, scans, out / "pictures", echo)
    states = Counter(cell.state for cell in cells)
    counts = ", ".join(f"{states[name]} {name}" for name in ("done", "failed", "open"))
    echo(f"{len(cells)} cells: {counts}")
    echo(f"{out / 'tables.md'}, tables.tex, cases.csv, cells.csv, scores.csv, figures/")
    failed = [cell for cell in own if cell.state == "failed"]
    if failed:
        logs = ", ".join(str(cell.log) for cell in failed)
        raise CrossvoxError(f"{len(failed)} of {len(own)} cells failed, in no table; see {logs}")
