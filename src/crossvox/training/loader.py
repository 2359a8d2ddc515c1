"""Batches of a range of steps, in order, made here or by worker processes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from crossvox.batch import Batch
from crossvox.errors import CrossvoxError
from crossvox.training.signals import ignore_signals


def batches(
    dataset: Dataset[Batch], steps: range, workers: int = 0
) -> Generator[Batch, None, None]:
    """Yield `dataset[step]` for each step.

    Nothing is drawn from the global random number generators, so a resumed run repeats the rest
    exactly. Close the generator when leaving it early; this ends its workers.

    Raises:
        CrossvoxError: as the dataset raised it. An error in a worker, too, is one line without a
            traceback.
    """
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        yield from iterator
    except CrossvoxError as error:
        # A worker's error has its traceback as text; the message is the last line.
        message = str(error).strip().splitlines()[-1]
        prefix = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(message.removeprefix(prefix)) from None
    finally:
        # Workers ignore SIGTERM, so the interpreter would wait for them for ever when it exits.
        # torch ends them only when nothing refers to the iterator any more, not even a traceback.
        if workers:
            cast(Any, iterator)._shutdown_workers()


def _begin_worker(worker: int) -> None:
    # A worker killed by the signal would break the step that the main process is finishing.
    ignore_signals()
