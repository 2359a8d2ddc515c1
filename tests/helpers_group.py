"""Process groups of two, and the threads that they leave behind or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

# Before there is a group: default arguments in there would else keep it, and its threads.
import torch.distributed.nn.functional  # noqa: F401
from torch import distributed as dist

THREADS = Path("/proc/self/task")
"""A folder for each thread of this process, on Linux."""


@contextlib.contextmanager
def one_of_two(rank: int, folder: str) -> Iterator[None]:
    """In one of two processes that `torch.multiprocessing.spawn` began: their group.

    What holds the group must be gone when the process ends. A thread of the group that then frees
    a tensor aborts a process that has done its work.
    """
    dist.init_process_group("gloo", init_method=f"file://{folder}/s", rank=rank, world_size=2)
    assert threads_of_groups() or not THREADS.exists()
    yield
    dist.destroy_process_group()


def threads_of_groups() -> list[str]:
    """Names of the threads of process groups that are not gone yet; on Linux only."""
    names = []
    for thread in THREADS.iterdir() if THREADS.exists() else ():
        with contextlib.suppress(OSError):  # it ended meanwhile
            names.append((thread / "comm").read_text().strip())
    return [name for name in names if "gloo" in name]
