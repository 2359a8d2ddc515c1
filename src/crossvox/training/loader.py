"""Batches of a range of steps, in order, made here or by worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crossvox.batch import Batch
from crossvox.errors import CrossvoxError
from crossvox.training.signals import ignore_signals


def batches(
    dataset: Dataset[Batch], steps: range, workers: int = 0, *, pinned: bool = False
) -> Generator[Batch, None, None]:
    """Yield `dataset[step]` for each step.

    Nothing is drawn from the global random number generators, so a resumed run repeats the rest
    exactly. Close the generator when leaving it early; this ends its workers.

    Args:
        dataset: step → batch.
        steps: to yield.
        workers: processes that make batches; 0 makes them here.
        pinned: put batches into memory from which a card copies by itself.

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
        pin_memory=pinned,
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


def on_device(
    feed: Generator[Batch, None, None], move: Callable[[Batch], Batch], device: torch.device
) -> Generator[Batch, None, None]:
    """Yield batches on a device; closes `feed`.

    On a card the next batch is copied beside the step that computes, on a stream of its own. For
    that it is taken from the feed one step early.

    Args:
        feed: pinned batches, for a card.
        move: copies a batch to the device without waiting.
        device: of the training.
    """
    with contextlib.closing(feed):
        if device.type != "cuda":
            yield from map(move, feed)
            return
        beside = torch.cuda.Stream(device)
        coming: tuple[Batch, torch.cuda.Event] | None = None
        for batch in feed:
            with torch.cuda.stream(beside):
                following = move(batch), beside.record_event()
            if coming is not None:
                yield _arrived(*coming, device)
            coming = following
        if coming is not None:
            yield _arrived(*coming, device)


def _arrived(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the step's stream, not the host, wait for the copy, and keep the memory from reuse."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(copied)

    def keep(tensor: Tensor) -> Tensor:
        tensor.record_stream(stream)
        return tensor

    return batch.map(keep)


def _begin_worker(worker: int) -> None:
    # A worker killed by the signal would break the step that the main process is finishing.
    ignore_signals()
