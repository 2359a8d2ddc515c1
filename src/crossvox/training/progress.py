"""Progress of a running training: the bar or lines on a terminal, and times per step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich import progress
from rich.console import Console

from crossvox.utils.durations import duration_text

T = TypeVar("T")


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall time of the block to a stage's seconds."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - began, 3)


class StepTimer:
    """Measure seconds per step and the share of them spent waiting for data."""

    def __init__(self) -> None:
        self._began = 0.0
        self._waited = self._total = 0.0
        self._steps = 0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches; time until the next one is ready counts as waiting."""
        iterator = iter(batches)
        while True:
            self._began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - self._began
            yield batch

    def end_step(self) -> None:
        """End a step; time until the next batch is asked for is not counted."""
        self._total += time.perf_counter() - self._began
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Return both figures since the last reading, which needs at least one step."""
        figures = {
            "time/step_s": self._total / self._steps,
            "time/data_share": self._waited / self._total if self._total else 0.0,
        }
        self._waited = self._total = 0.0
        self._steps = 0
        return figures


ESTIMATE_AFTER = 10
"""Steps after which the time of a training is estimated; the first one is left out as slow."""


class Progress:
    """Show a bar with the time left on a terminal, else a line every tenth of the steps.

    After `ESTIMATE_AFTER` steps comes a line with an estimate of the whole time.

    Args:
        steps: number of steps of the run.
        done: steps that were done before.
        shown: False in all processes but the first.
        console: where to print; None = standard error.
    """

    def __init__(
        self, steps: int, done: int = 0, *, shown: bool = True, console: Console | None = None
    ) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._steps, self._done, self._first = steps, done, done
        self._shown = shown
        self._loss = ""
        self._began = self._warm = time.monotonic()
        self._bar: progress.Progress | None = None
        if shown and self._console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("training"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[loss]}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=steps, completed=done, loss="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, loss: float | None = None) -> None:
        """Count one more step; `loss` where it is known."""
        if loss is not None:
            self._loss = f"loss {loss:.4f}"
        before, self._done = self._done, self._done + 1
        if self._done - self._first == 1:
            self._warm = time.monotonic()
        if self._done - self._first == ESTIMATE_AFTER and self._done < self._steps:
            pace = (time.monotonic() - self._warm) / (ESTIMATE_AFTER - 1)
            left = self._steps - self._done
            self.say(
                f"estimate     at least {duration_text(pace * left)} for the {left} steps left, at "
                f"{pace:.2f} s/step; validation comes on top"
            )
        if self._bar:
            self._bar.update(self._task, completed=self._done, loss=self._loss)
        elif before * 10 // self._steps < self._done * 10 // self._steps:
            self._line()

    def say(self, text: str) -> None:
        """Print a line of text, above the bar if there is one."""
        if self._shown:
            self._console.print(text, soft_wrap=True, markup=False)

    def _line(self) -> None:
        pace = (time.monotonic() - self._began) / (self._done - self._first)
        left = pace * (self._steps - self._done)
        self.say(
            f"step {self._done}/{self._steps}  {self._loss}  {pace:.2f} s/step  "
            f"{duration_text(left)} left"
        )
