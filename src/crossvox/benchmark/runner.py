"""Running the cells of a benchmark side by side, each in its own processes."""

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
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
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

Cost = dict[str, float]
"""Cost of a command: wall and CPU seconds, and peak memory in MB."""


class CommandError(Exception):
    """A command of a cell ended with an error."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"exit code {code} of `crossvox {what}`")
        self.code = code


@dataclass
class Launcher:
    """Run `crossvox` commands as processes, and stop them if the benchmark stops.

    Attributes:
        threads: CPU threads of each process.
    """

    threads: int
    _running: set[int] = field(default_factory=set)

    def __call__(self, arguments: Sequence[str], log: Path, lock: int) -> Cost:
        """Run one command, append its output to `log` and return its cost.

        The process keeps `lock` open too. If it outlives the benchmark, its cell stays locked.
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
        """Ask every running command to save its state and end."""
        for pid in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


Launch = Callable[[Sequence[str], Path, int], Cost]
"""Runs a command as `Launcher` does."""


@dataclass(frozen=True)
class Share:
    """The cells to run on this machine, and how many at once.

    Attributes:
        jobs: cells that run at once.
        index, total: this machine's share of the grid, counted from 1.
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
        """Return every `total`-th cell, beginning with the `index`-th."""
        return list(cells[self.index - 1 :: self.total])


def run_cells(
    cells: Sequence[Cell],
    share: Share,
    launch: Launch | None = None,
    echo: Echo = print,
    console: Console | None = None,
) -> None:
    """Run the cells that are not done. A failure stops only its cell and is noted in its folder.

    Args:
        cells: the cells of this share; done ones are skipped, begun ones continue.
        share: how many run at once.
        launch: runs a command; None runs it as a process.
        echo: takes a line for each failure.
        console: shows the progress, on a terminal only; None means standard error.
    """
    launcher = Launcher(share.threads)
    console = console or Console(file=sys.stderr, highlight=False)
    todo = [cell for cell in cells if cell.state != "done"]
    bar = _bar(console, len(cells), len(cells) - len(todo))
    with _terminable(), bar as finished:
        pool = ThreadPoolExecutor(share.jobs)
        waiting = {pool.submit(_run_cell, cell, share, launch or launcher) for cell in todo}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    waiting.remove(future)
                    if not future.cancelled() and (message := future.result()):
                        echo(message)
                    finished()
        finally:
            # After Ctrl-C: start no further cell, and let the running ones save their state.
            pool.shutdown(wait=False, cancel_futures=True)
            launcher.stop()
            pool.shutdown(wait=True)


def _run_cell(cell: Cell, share: Share, launch: Launch) -> str:
    """Run the missing commands of a cell; return why it failed or was skipped, or ""."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with Lock(cell.folder / "lock") as lock:
        if not lock.acquire():
            return f"{cell.name}: left to another process that runs it"
        cell.failure.unlink(missing_ok=True)
        if not cell.is_trained:
            cell.forget_tests()
        text = yaml.safe_dump(cell.config.to_dict(), sort_keys=False, allow_unicode=True)
        atomic_write(cell.folder / "settings.yaml", text)
        if cell.derived is not None and not cell.config.data.exists():
            cell.derived.save(cell.config.data)
        for what, arguments in cell.commands():
            try:
                cost = launch(arguments, cell.log, lock.handle)
            except CommandError as error:
                note = {"what": str(error), "code": error.code, "says": _last_line(cell.log)}
                # A stopped cell has not failed; it continues next time.
                if error.code not in (130, -signal.SIGTERM, -signal.SIGINT):
                    atomic_write(cell.failure, json.dumps(note, ensure_ascii=False))
                return f"{cell.name}: {note['says']} ({note['what']}); see {cell.log}"
            place = cell.training_cost if what == "trained" else cell.test_cost(what)
            extra: dict[str, Any] = {"jobs": share.jobs, "threads": share.threads}
            if what != "trained":
                extra["files"] = cell.hashes()
            atomic_write(place, json.dumps(cost | extra))
    return ""


def _last_line(log: Path) -> str:
    """Return the last line of output of a cell's command."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
    return said[-1] if said else "no message"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, which a cluster sends at the time limit, end the block as Ctrl-C does."""

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
    """Show a bar with the time left, estimated from the finished cells; nothing off a terminal."""
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
