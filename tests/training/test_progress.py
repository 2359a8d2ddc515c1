"""The progress bar, its lines without a terminal, and the times per step."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from crossvox.training.progress import Progress, StepTimer
from crossvox.utils.durations import duration_text


def test_terminal_gets_a_bar_with_the_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(4, console=console) as bar:
        for step in range(4):
            bar.advance(loss=step / 10)
    text = console.file.getvalue()
    assert "4/4" in text and "loss 0.3000" in text and "left" in text


def test_a_resumed_run_reports_from_where_it_is():
    console = Console(file=io.StringIO(), width=100)
    with Progress(10, done=8, console=console) as bar:
        bar.advance(loss=1.0)
        bar.advance()
    lines = console.file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["9/10", "10/10"]


def test_the_time_is_estimated_once_after_ten_steps():
    console = Console(file=io.StringIO(), width=200)
    with Progress(400, console=console) as bar:
        for step in range(40):
            time.sleep(0.05 if step == 0 else 0.001)  # the first step is slow
            bar.advance(loss=1.0)
    (said,) = [x for x in console.file.getvalue().splitlines() if x.startswith("estimate")]
    assert "for the 390 steps left" in said and "0.00 s/step" in said
    assert duration_text(40) == "40 s" and duration_text(700) == "12 min"
    assert duration_text(9000) == "2.5 h"


def test_other_processes_are_quiet():
    console = Console(file=io.StringIO(), width=100)
    with Progress(2, shown=False, console=console) as bar:
        bar.advance(loss=1.0)
        bar.say("nothing")
    assert console.file.getvalue() == ""


def test_clock_tells_waiting_from_working():
    def slow():
        for _ in range(2):
            time.sleep(0.03)
            yield None

    timer = StepTimer()
    for _ in timer.watch(slow()):
        time.sleep(0.01)
        timer.end_step()
        time.sleep(0.05)  # validation, saving: neither waiting nor a step
    figures = timer.read()
    assert figures["time/step_s"] == pytest.approx(0.04, rel=0.3)
    assert figures["time/data_share"] == pytest.approx(0.75, rel=0.2)
