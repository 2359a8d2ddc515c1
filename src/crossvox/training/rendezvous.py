"""Where the processes of a run meet when `torchrun` begins them, the first time and anew."""

from __future__ import annotations

import os
import socket
import time
import uuid

from torch import distributed as dist
from torch.distributed.constants import default_pg_timeout

POLL = 0.02
"""Seconds between two looks of the first process for those that are still to come."""


def meet_apart() -> None:
    """Let the processes that `torchrun` just began meet at a port of their own.

    It offers them one store for all starts of a job. After a restart that store still tells where
    the processes before were, and whoever looks before these entries are replaced tries to reach
    the dead (https://github.com/pytorch/pytorch/issues/135712). How often a job was restarted
    cannot tell the starts apart: each machine counts for itself.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=default_pg_timeout)
    os.environ["MASTER_PORT"] = str(agree_on_port(store, rank, world))
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def agree_on_port(store: dist.Store, rank: int, world: int) -> int:
    """A port that is free on the first process's machine, the same for all of this start.

    Args:
        store: holds whatever earlier starts left there.
        rank: of this process.
        world: number of processes, each of which calls this.
    """
    if rank:
        own = uuid.uuid4().hex
        store.set(f"crossvox/asks/{rank}", own)
        # An answer to a question never asked before is one of this start.
        answer = store.get(f"crossvox/answer/{own}").decode()
        store.set(f"crossvox/knows/{answer}/{rank}", "")
        return int(answer.split("-")[0])
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    answer = f"{port}-{uuid.uuid4().hex}"
    waiting = set(range(1, world))
    while waiting:
        for other in waiting:
            # Maybe the question of an earlier start; its answer reaches nobody.
            asked = store.get(f"crossvox/asks/{other}").decode()
            store.set(f"crossvox/answer/{asked}", answer)
        waiting = {r for r in waiting if not store.check([f"crossvox/knows/{answer}/{r}"])}
        time.sleep(POLL)
    return port
