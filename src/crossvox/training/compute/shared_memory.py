"""Shared memory, through which worker processes hand over batches: how much there is and is needed.

Containers often have 64 MB of it, Docker's default. A worker that fills it is killed, so there is a
look before the work begins.
"""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from crossvox.batch import Batch

FOLDER = Path("/dev/shm")
PREFETCHED = 2
"""Batches that each worker makes ahead."""
LOCKS = 2**20
"""Bytes that the locks between processes take at most."""
PLENTY = 2**34
"""With so many free bytes no batch need be measured."""


@dataclass(frozen=True)
class Workers:
    """How batches are made.

    Attributes:
        number: of processes; 0 = by the training process itself.
        shared: batches come through shared memory; otherwise through pipes, which takes longer.
        note: what is not as asked for, and why; empty if all is.
    """

    number: int
    shared: bool = True
    note: str = ""


def free_shared_memory() -> int | None:
    """Return the free bytes of shared memory; None where the system does not bound it."""
    if sys.platform != "linux":
        return None
    if not os.access(FOLDER, os.W_OK | os.X_OK):
        return 0
    status = os.statvfs(FOLDER)
    return status.f_bavail * status.f_frsize


def choose_workers(
    asked: int, dataset: Dataset[Batch], step: int, processes: int = 1, free: int | None = None
) -> Workers:
    """Choose how batches are made, so that they fit into the shared memory.

    Args:
        asked: number of workers wanted.
        dataset: makes the batches.
        step: whose batch is measured, if need be.
        processes: that train on this machine, each with workers of its own.
        free: bytes of shared memory; None = no bound.
    """
    if not asked or free is None or free > PLENTY:
        return Workers(asked)
    if free < LOCKS * processes:
        note = "too little for worker processes; the training process makes the batches itself"
        return Workers(0, note=f"{FOLDER} has {free / 1e6:.1f} MB free, {note}")
    size = len(pickle.dumps(dataset[step]))
    # One more is in use, and one in the making.
    needed = processes * (size * (PREFETCHED * asked + 2) + LOCKS)
    if needed <= free:
        return Workers(asked)
    note = (
        f"{FOLDER} has {free / 1e6:.0f} MB free, {asked} workers may fill {needed / 1e6:.0f} MB; "
        "batches come through pipes, which takes longer (more room: docker run --shm-size=2g)"
    )
    return Workers(asked, shared=False, note=note)
