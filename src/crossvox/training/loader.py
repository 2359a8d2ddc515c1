"""The batches of a range of steps, in order, loaded here or by worker processes."""

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

    Draws nothing from the global random number generators, so that a restart repeats the rest of
    a run exactly. Close the generator when leaving it early: that ends its workers.

    Raises:
        CrossvoxError: as the dataset raised it, from a worker too: one line, without its
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
        # A worker's error arrives with the worker's traceback as its text, the message last.
        message = str(error).strip().splitlines()[-1]
        prefix = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(message.removeprefix(prefix)) from None
    finally:
        # Workers deaf to SIGTERM must not be left to the interpreter's exit, which would wait for
        # them for ever; torch ends them only when nothing, no traceback either, refers to them.
        if workers:
            cast(Any, iterator)._shutdown_workers()


def _begin_worker(worker: int) -> None:
    # A worker that dies of the signal would break the step that the main process is finishing.
    ignore_signals()
