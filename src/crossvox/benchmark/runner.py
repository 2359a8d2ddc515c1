"""Running the cells of a benchmark: side by side, each in processes of its own, and again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich import progress
from rich.console import Console

from crossvox.benchmark.cell import Cell
from crossvox.errors import UsageError, require
from crossvox.utils.files import atomic_write, naming_errors
from crossvox.utils.locks import Lock
from crossvox.workflows.messages import Echo

Spent = dict[str, float]
"""Wall and CPU seconds, and the most memory in MB, that a command took."""


class CommandError(Exception):
    """A command of a cell ended with an error."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"exit code {code} of `crossvox {what}`")
        self.code = code


@dataclass
class Launcher:
    """Runs `crossvox` commands as processes, and ends them if the benchmark ends.

    Attributes:
        threads: CPU threads of each.
    """

    threads: int
    _running: set[int] = field(default_factory=set)

    def __call__(self, arguments: Sequence[str], log: Path, lock: int) -> Spent:
        """Run one command; its output is added to `log`.

        The process keeps `lock` open too: should it outlive the benchmark, its cell stays taken.
        """
        command = [str(Path(sys.executable).with_name("crossvox")), *arguments]
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(self.threads))
        with naming_errors(log), open(log, "a", encoding="utf-8") as file:
            print(f"$ crossvox {' '.join(arguments)}", file=file, flush=True)
            began = time.perf_counter()
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, pass_fds=(lock,)
            )
            self._running.add(process.pid)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            finally:
                self._running.discard(process.pid)
        if code := os.waitstatus_to_exitcode(status):
            raise CommandError(code, " ".join(arguments))
        return {
            "wall": time.perf_counter() - began,
            "cpu": usage.ru_utime + usage.ru_stime,
            "megabytes": usage.ru_maxrss / 1024,
        }

    def stop(self) -> None:
        """Ask every command under way to save what it has and end."""
        for pid in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


Launch = Callable[[Sequence[str], Path, int], Spent]


@dataclass(frozen=True)
class Share:
    """Which cells to run, and how many at once.

    Attributes:
        jobs: cells side by side.
        index, total: this machine's part of the grid, from 1.
    """

    jobs: int = 1
    index: int = 1
    total: int = 1

    def __post_init__(self) -> None:
        require("--jobs", self.jobs, 1)
        if not 1 <= self.index <= self.total:
            raise UsageError(
                f"--shard {self.index}/{self.total}: expected i/n with i from 1 to n, such as 1/4"
            )

    @property
    def threads(self) -> int:
        """CPU threads of each job."""
        return max(1, len(os.sched_getaffinity(0)) // self.jobs)

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Every n-th cell, from the i-th."""
        return list(cells[self.index - 1 :: self.total])


def run_cells(
    cells: Sequence[Cell],
    share: Share,
    launch: Launch | None = None,
    echo: Echo = print,
    console: Console | None = None,
) -> None:
    """Run what is missing of the cells; a failure stops its cell alone, and is noted there.

    Args:
        cells: of this share; done ones are passed over, begun ones go on.
        share: how many at once.
        launch: runs a command; None = as a process.
        echo: takes a line for each failure.
        console: for the progress, shown on a terminal only; None = standard error.
    """
    launcher = Launcher(share.threads)
    console = console or Console(file=sys.stderr, highlight=False)
    todo = [cell for cell in cells if cell.state != "done"]
    bar = _bar(console, len(cells), len(cells) - len(todo))
    with _terminable(), bar as finished:
        pool = ThreadPoolExecutor(share.jobs)
        waiting = {pool.submit(_work, cell, share, launch or launcher): cell for cell in todo}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    _tell(waiting.pop(future), future, echo)
                    finished()
        finally:
            # After Ctrl-C: begin no further cell, and let those under way save what they have.
            pool.shutdown(wait=False, cancel_futures=True)
            launcher.stop()
            pool.shutdown(wait=True)


def _work(cell: Cell, share: Share, launch: Launch) -> str:
    """Do what is missing of a cell; returns why it failed or was left alone, or nothing."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with Lock(cell.folder / "lock") as lock:
        if not lock.acquire():
            return f"{cell.name}: left to another process that is at it"
        cell.failure.unlink(missing_ok=True)
        if not cell.is_trained:
            cell.forget_tests()
        text = yaml.safe_dump(cell.config.to_dict(), sort_keys=False, allow_unicode=True)
        atomic_write(cell.folder / "settings.yaml", text)
        if cell.derived is not None and not cell.config.data.exists():
            cell.derived.save(cell.config.data)
        for what, arguments in cell.commands():
            try:
                spent = launch(arguments, cell.log, lock.handle)
            except CommandError as error:
                note = {"what": str(error), "code": error.code, "says": _last_line(cell.log)}
                # One that was stopped is none that failed: it goes on next time.
                if error.code not in (130, -signal.SIGTERM, -signal.SIGINT):
                    atomic_write(cell.failure, json.dumps(note, ensure_ascii=False))
                return f"{cell.name}: {note['says']} ({note['what']}); see {cell.log}"
            place = cell.trained if what == "trained" else cell.spent(what)
            extra: dict[str, Any] = {"jobs": share.jobs, "threads": share.threads}
            if what != "trained":
                extra["files"] = cell.hashes()
            atomic_write(place, json.dumps(spent | extra))
    return ""


def _tell(cell: Cell, future: Future[str], echo: Echo) -> None:
    if not future.cancelled() and (said := future.result()):
        echo(said)


def _last_line(log: Path) -> str:
    """The last thing that a cell's command said."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
    return said[-1] if said else "no message"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as at a cluster's time limit, ends the block as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread set handlers.
        return
    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def _bar(console: Console, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left, from the mean time of the cells so far; nothing off a terminal."""
    if not console.is_terminal:
        yield lambda: None
        return
    began, first = time.monotonic(), done
    with progress.Progress(
        progress.TextColumn("cells"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[left]}"),
        console=console,
    ) as bar:
        task = bar.add_task("", total=total, completed=done, left="")

        def finished() -> None:
            nonlocal done
            done += 1
            minutes = (time.monotonic() - began) / (done - first) * (total - done) / 60
            bar.update(task, completed=done, left=f"{minutes:.0f} min left")

        yield finished
