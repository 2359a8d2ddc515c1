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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from crossvox.benchmark.cells.cell import Cell, Training
from crossvox.benchmark.cells.progress import CellCount
from crossvox.errors import UsageError, require
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write, naming_errors
from crossvox.utils.locks import Lock
from crossvox.utils.machine import MAXRSS, usable_cores
from crossvox.workflows.messages import Echo

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that set the CPU threads of a process."""

Cost = dict[str, float]
"""Cost of a command: wall and CPU seconds, and peak memory in MB."""


class CommandError(Exception):
    """A command of a cell ended with an error.

    Attributes:
        code: exit code.
        cost: what the command cost until then.
    """

    def __init__(self, code: int, what: str, cost: Cost) -> None:
        super().__init__(f"exit code {code} of `crossvox {what}`")
        self.code, self.cost = code, cost


@dataclass
class Launcher:
    """Run `crossvox` commands as processes, and stop them if the benchmark stops.

    Attributes:
        threads: CPU threads of each process, unless the environment sets them.
    """

    threads: int
    _running: set[int] = field(default_factory=set)

    def __call__(self, arguments: Sequence[str], log: Path, lock: int) -> Cost:
        """Run one command, append its output to `log` and return its cost.

        The process keeps `lock` open too. If it outlives the benchmark, its cell stays locked.
        """
        command = [str(Path(sys.executable).with_name("crossvox")), *arguments]
        environment = dict.fromkeys(THREADS, str(self.threads)) | os.environ
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
        cost = {
            "wall": time.perf_counter() - began,
            "cpu": usage.ru_utime + usage.ru_stime,
            "megabytes": usage.ru_maxrss * MAXRSS / 2**20,
        }
        if code := os.waitstatus_to_exitcode(status):
            raise CommandError(code, " ".join(arguments), cost)
        return cost

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
        """CPU threads of each job: those that the user's environment sets, or its share of all."""
        asked = os.environ.get(THREADS[0], "").split(",")[0].strip()
        if asked.isdecimal() and int(asked):
            return int(asked)
        return max(1, usable_cores() // self.jobs)

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
        cells: the cells of this share; done ones are skipped, begun ones continue. A run that some
            begin from comes just before them; the others do not wait for it.
        share: how many run at once.
        launch: runs a command; None runs it as a process.
        echo: takes a line for each finished cell, and for each failure.
        console: shows a bar, on a terminal only; None means standard error.
    """
    launcher = Launcher(share.threads)
    console = console or Console(file=sys.stderr, highlight=False)
    todo = [cell for cell in cells if cell.state != "done"]
    pending = _with_starts(todo)
    missing = {one.folder for one in pending if not isinstance(one, Cell)}
    work = _Work(share, launch or launcher)
    count = CellCount(len(cells), len(cells) - len(todo), echo, console)
    with _terminable(), count:
        pool, running = ThreadPoolExecutor(share.jobs), dict[Future[str], Training]()
        try:
            while pending or running:
                ready = [one for one in pending if not (_start_of(one) & missing)]
                for one in ready[: share.jobs - len(running)]:
                    pending.remove(one)
                    # Another share of the grid may be at work on a start.
                    running[pool.submit(work.run, one, one.folder in missing)] = one
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    one = running.pop(future)
                    missing.discard(one.folder)
                    if message := future.result():
                        echo(message)
                    count.finish(one)
        finally:
            # After Ctrl-C: start no further run, and let the running ones save their state.
            pool.shutdown(wait=False)
            if running:
                work.stopping.set()
                launcher.stop()
            pool.shutdown(wait=True)


def _with_starts(cells: Iterable[Cell]) -> list[Training]:
    """Return the cells, and before the first that needs it each start that is not trained."""
    found: dict[Path, Training] = {}
    for cell in cells:
        if not cell.is_trained and cell.start is not None and not cell.start.is_trained:
            found.setdefault(cell.start.folder, cell.start)
        found[cell.folder] = cell
    return list(found.values())


def _start_of(one: Training) -> set[Path]:
    """Return the folder of the run that a cell begins from, if it begins from one."""
    return {one.start.folder} if isinstance(one, Cell) and one.start is not None else set()


@dataclass
class _Work:
    """What is needed to run a cell, or the start of one.

    Attributes:
        share: how many run at once.
        launch: runs a command.
        stopping: set when the benchmark ends early.
    """

    share: Share
    launch: Launch
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, one: Training, wait_for_others: bool) -> str:
        """Run the missing commands of a run; return why it failed or was skipped, or ""."""
        one.folder.mkdir(parents=True, exist_ok=True)
        with Lock(one.folder / "lock") as lock:
            while not lock.acquire():
                if not wait_for_others:
                    return f"{one.name}: left to another process that runs it"
                if self.stopping.wait(1):
                    return ""
            one.failure.unlink(missing_ok=True)
            if isinstance(one, Cell) and one.start is not None and not one.start.is_trained:
                return self._without_start(one, one.start)
            if not one.is_trained:
                one.forget()
            text = yaml.safe_dump(one.config.to_dict(), sort_keys=False, allow_unicode=True)
            atomic_write(one.folder / "settings.yaml", text)
            if one.derived is not None and not one.config.data.exists():
                one.derived.save(one.config.data)
            try:
                if not one.is_trained:
                    self._train(one, lock.handle)
                if isinstance(one, Cell):
                    self._test(one, lock.handle)
            except CommandError as error:
                return _failed(one, error)
        return ""

    def _train(self, one: Training, lock: int) -> None:
        """Train, and note the cost of all attempts."""
        if not one.is_begun:
            one.unfinished_cost.unlink(missing_ok=True)
        earlier = _cost(one.unfinished_cost)
        try:
            cost = _sum(self.launch(one.training(), one.log, lock), earlier)
        except CommandError as error:
            atomic_write(one.unfinished_cost, json.dumps(_sum(error.cost, earlier)))
            raise
        one.unfinished_cost.unlink(missing_ok=True)
        self._note(one.training_cost, cost)

    def _test(self, cell: Cell, lock: int) -> None:
        """Make the missing tests of a trained run, and note the cost of each."""
        for variant, arguments in cell.missing_tests():
            cell.forget_test(variant)
            cost = self.launch(arguments, cell.log, lock)
            self._note(cell.test_cost(variant), {**cost, "files": cell.hashes()})

    def _note(self, place: Path, cost: Mapping[str, Any]) -> None:
        text = json.dumps({**cost, "jobs": self.share.jobs, "threads": self.share.threads})
        atomic_write(place, text)

    def _without_start(self, cell: Cell, start: Training) -> str:
        """Return why a cell could not begin, and note it unless its start was only stopped."""
        says = f"the run that it begins from is not trained; see {start.log}"
        if start.failure.exists():
            note = {"what": "its start failed", "code": 1, "says": says}
            atomic_write(cell.failure, json.dumps(note, ensure_ascii=False))
        return f"{cell.name}: {says}"


def _failed(one: Training, error: CommandError) -> str:
    """Return why a command of a run failed, and note it unless it was only stopped."""
    note = {"what": str(error), "code": error.code, "says": _last_line(one.log)}
    # A stopped run continues next time.
    if error.code not in (130, -signal.SIGTERM, -signal.SIGINT):
        atomic_write(one.failure, json.dumps(note, ensure_ascii=False))
    return f"{one.name}: {note['says']} ({note['what']}); see {one.log}"


def _cost(file: Path) -> Cost | None:
    """Return the cost in a file; None if there is no such file, or it is damaged."""
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
        return {name: float(found[name]) for name in ("wall", "cpu", "megabytes")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _sum(last: Cost, earlier: Cost | None) -> Cost:
    """Return the cost of a command and of its earlier attempts."""
    if earlier is None:
        return last
    spent = {name: last[name] + earlier[name] for name in ("wall", "cpu")}
    return {**spent, "megabytes": max(last["megabytes"], earlier["megabytes"])}


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
