"""The processes of a run: where they meet, what the first one does for all, and lost ones."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from lightning_fabric import Fabric
from torch import distributed as dist
from torch.distributed.constants import default_pg_timeout

from crossvox.errors import CrossvoxError

RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""Variables in which `torchrun --max-restarts` and SLURM (`--requeue`) count restarts of a job."""
TRANSPORTS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Words in errors that come from the other end of a connection."""
POLL = 0.02
"""Seconds between two looks of the first process for processes that are still to come."""


def was_restarted() -> bool:
    """Return whether the launcher began this job anew after a failure or a preemption."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RESTARTS)


def is_first_process() -> bool:
    """Return whether this is the first process of a run, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextlib.contextmanager
def first_process(fabric: Fabric) -> Iterator[bool]:
    """Do something in the first process only; an error there ends all processes alike.

    Yields:
        Whether this is the first process.

    >>> with first_process(fabric) as first:
    ...     if first:
    ...         require_folder(out)
    """
    error: CrossvoxError | OSError | None = None
    try:
        yield fabric.is_global_zero
    except (CrossvoxError, OSError) as raised:
        error = raised
    error = fabric.broadcast(error)
    if error is not None:
        raise error


@contextlib.contextmanager
def explain_lost_processes(out: Path) -> Iterator[None]:
    """Turn the transport's error into one line when another process of the run is gone.

    Args:
        out: the run directory.

    Raises:
        CrossvoxError: another process ended in the block, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        together = dist.is_initialized() and dist.get_world_size() > 1
        words = " ".join(str(error).split()).split(". ")[0]
        if not (together and any(name in words for name in TRANSPORTS)):
            raise
        raise CrossvoxError(
            f"process {dist.get_rank()} of {dist.get_world_size()} lost another one, whose own "
            f"last lines say why ({words}); go on with: crossvox train --resume {out}"
        ) from None


def use_own_port() -> None:
    """Let the processes that `torchrun` just started meet at a port of their own.

    `torchrun` offers one store for all starts of a job. After a restart that store still holds
    the addresses of the former processes. A process that looks before they are replaced tries to
    reach a dead one (https://github.com/pytorch/pytorch/issues/135712). The restart count cannot
    tell the starts apart, because each machine counts for itself.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=default_pg_timeout)
    os.environ["MASTER_PORT"] = str(agree_on_port(store, rank, world))
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def agree_on_port(store: dist.Store, rank: int, world: int) -> int:
    """Return a free port of the first process's machine, the same for all processes of this start.

    Args:
        store: may hold entries of earlier starts.
        rank: of this process.
        world: number of processes, each of which calls this.
    """
    if rank:
        question = uuid.uuid4().hex
        store.set(f"crossvox/asks/{rank}", question)
        # This question was never asked before, so its answer is of this start.
        answer = store.get(f"crossvox/answer/{question}").decode()
        store.set(f"crossvox/knows/{answer}/{rank}", "")
        return int(answer.split("-")[0])
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    answer = f"{port}-{uuid.uuid4().hex}"
    waiting = set(range(1, world))
    while waiting:
        for other in waiting:
            # This may be the question of an earlier start; its answer then reaches nobody.
            question = store.get(f"crossvox/asks/{other}").decode()
            store.set(f"crossvox/answer/{question}", answer)
        waiting = {r for r in waiting if not store.check([f"crossvox/knows/{answer}/{r}"])}
        time.sleep(POLL)
    return port
