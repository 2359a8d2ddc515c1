"""Commands in processes of their own, which may be killed or find that they can write no more."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from torch import distributed as dist

from crossvox.batch import Batch
from crossvox.cli.main import main
from crossvox.data.loading import CropDataset
from helpers_group import threads_of_groups

FORK = multiprocessing.get_context("fork")

THREADS_LEFT = 99
"""Exit code of a process that succeeded, but whose end a thread might still abort."""

Before = Callable[[], object]
"""What is done in the new process before its command."""


def run(arguments: list[str], before: Before = int, seconds: float = 300) -> tuple[int, str]:
    """Run a command in a process of its own: its exit code, and what it said on standard error.

    After `seconds` it is killed, its exit code then is `-signal.SIGKILL`.
    """
    read, write = os.pipe()
    process = FORK.Process(target=_child, args=(arguments, write, before))
    process.start()
    os.close(write)
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    with open(read, encoding="utf-8") as said:
        return process.exitcode or 0, said.read()


def attempt(arguments: list[str], seconds: float = 300, before: Before = int) -> bool:
    """Run a command that is killed after a time, if not otherwise; True if it was killed."""
    code, said = run(arguments, before, seconds)
    assert code in (0, -signal.SIGKILL), f"{arguments} ended with {code}: {said}"
    return code != 0


def killed_at(number: int, after: bool) -> Before:
    """Kill the process when it moves its `number`-th file into place: just before, or after."""
    return _when_moving(number, after, lambda: os.kill(os.getpid(), signal.SIGKILL))


def full_after(number: int) -> Before:
    """Let the process write to no file any more once it has moved `number` files into place."""

    def full() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    return _when_moving(number, True, full) if number else full


def contents(folder: Path, *but: str) -> dict[str, bytes]:
    """Every file below a folder, without those whose path contains one of `but`."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if path.is_file() and not any(part in name for part in but)
    }


def begin(argv: list[str], out: Path, restarts: int = 0, dies_at: int | None = None) -> list:
    """The two processes that `torchrun --nproc-per-node 2` would begin, without its start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        variables = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "here",
            "TORCHELASTIC_RESTART_COUNT": str(restarts),
        }
        said = out.parent / f"said{rank}.txt"
        processes.append(
            FORK.Process(target=_ranked, args=(argv, variables, said, dies_at if rank else None))
        )
        processes[-1].start()
    return processes


def ended(processes: list, within: float = 300) -> list[int]:
    for process in processes:
        process.join(within)
    assert not any(process.is_alive() for process in processes)
    return [process.exitcode for process in processes]


def _when_moving(number: int, after: bool, act: Callable[[], object]) -> Before:
    def patch() -> None:
        replace, count = os.replace, 0

        def counted(*arguments: str | Path) -> None:
            nonlocal count
            count += 1
            if count == number and not after:
                act()
            replace(*arguments)
            if count == number and after:
                act()

        os.replace = counted

    return patch


def _child(arguments: list[str], write: int, before: Before) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(write, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    before()
    code = main(arguments)
    sys.stderr.flush()
    os._exit(code)


def _ranked(argv: list[str], variables: dict[str, str], said: Path, dies_at: int | None) -> None:
    load = CropDataset.__getitem__

    def load_or_die(self: CropDataset, step: int) -> Batch:
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, step)

    CropDataset.__getitem__ = load_or_die
    os.environ.update(variables)
    with (
        open(said, "a", buffering=1, encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        code = main(argv)
    # As at the end of a command, whose last act is to leave the group.
    dist.destroy_process_group()
    os._exit(code or THREADS_LEFT * bool(threads_of_groups()))
