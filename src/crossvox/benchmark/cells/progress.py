"""Progress of a benchmark: a line for each cell that ends, and a bar on a terminal."""

from __future__ import annotations

import time

from rich import progress
from rich.console import Console

from crossvox.benchmark.cells.cell import PLAIN, Cell, Training
from crossvox.utils.documents import parse_json
from crossvox.utils.durations import duration_text
from crossvox.workflows.messages import Echo


class CellCount:
    """Count the cells that have ended.

    Args:
        total: number of cells.
        done: cells that were done before.
        echo: takes a line for each that ends: its mean Dice, how many are left and for how long.
        console: shows a bar if it is a terminal.
    """

    def __init__(self, total: int, done: int, echo: Echo, console: Console) -> None:
        self._total, self._done, self._first = total, done, done
        self._echo = echo
        self._began = time.monotonic()
        self._bar = _bar(console)
        self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> CellCount:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def finish(self, one: Training) -> None:
        """Count a cell; the run that cells begin from is told, but is no cell."""
        if not isinstance(one, Cell):
            self._echo(f"start  {one.name}: {'trained' if one.is_trained else 'not trained'}")
            return
        self._done += 1
        left = self._total - self._done
        pace = (time.monotonic() - self._began) / (self._done - self._first)
        ending = f"{left} left, about {duration_text(pace * left)}" if left else "none left"
        self._bar.update(self._task, completed=self._done)
        self._echo(f"{self._done}/{self._total}  {one.name}: {_outcome(one)}; {ending}")


def _outcome(cell: Cell) -> str:
    """Return the mean Dice of a cell's plain test, or its state if it is not done."""
    if cell.state != "done":
        return cell.state
    summary = parse_json((cell.scores(PLAIN) / "summary.json").read_text(encoding="utf-8"))
    dice = summary["overall"]["dice"]["mean"]
    return "Dice undefined" if dice is None else f"Dice {dice:.3f}"


def _bar(console: Console) -> progress.Progress:
    return progress.Progress(
        progress.TextColumn("cells"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
