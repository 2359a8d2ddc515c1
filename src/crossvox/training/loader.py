"""Batches of a range of steps, in order, made here or by worker processes."""

from __future__ import annotations

import contextlib
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crossvox.batch import Batch
from crossvox.errors import CrossvoxError
from crossvox.training.compute.shared_memory import PREFETCHED, choose_workers, free_shared_memory
from crossvox.training.signals import ignore_signals

REASONS = {
    "Killed": "killed, as the system does with the largest process when memory is used up; take "
    "fewer --compute.workers",
    "Bus error": "killed because the shared memory (/dev/shm) is full; make it larger, or give "
    "--compute.workers 0",
}
"""The signal that ended a worker, as torch names it → what that means."""


def batches(
    dataset: Dataset[Batch],
    steps: range,
    workers: int = 0,
    *,
    processes: int = 1,
    pinned: bool = False,
    say: Callable[[str], None] = print,
) -> Generator[Batch, None, None]:
    """Yield `dataset[step]` for each step.

    Nothing is drawn from the global random number generators, so a resumed run repeats the rest
    exactly. Close the generator when leaving it early; this ends its workers.

    Args:
        dataset: step → batch.
        steps: to yield.
        workers: processes that make batches, fewer where shared memory is too small; 0 makes them
            here.
        processes: that train on this machine, each with workers of its own.
        pinned: put batches into memory from which a card copies by itself.
        say: takes a line for the user, if something is not as asked for.

    Raises:
        CrossvoxError: as the dataset raised it. An error in a worker, too, is one line without a
            traceback.
    """
    if not steps:
        return
    chosen = choose_workers(workers, dataset, steps[0], processes, free_shared_memory())
    if chosen.note:
        say(chosen.note)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=steps,
        batch_size=None,
        num_workers=chosen.number,
        prefetch_factor=PREFETCHED if chosen.number else None,
        # Bytes go through a pipe, tensors through shared memory.
        collate_fn=_keep if chosen.shared else _to_bytes,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),
        pin_memory=pinned,
    )
    iterator = iter(loader)
    try:
        for batch in iterator:
            if not chosen.shared:
                batch = pickle.loads(batch)
                batch = batch.pin_memory() if pinned else batch
            yield batch
    except CrossvoxError as error:
        # A worker's error has its traceback as text; the message is the last line.
        message = str(error).strip().splitlines()[-1]
        prefix = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(message.removeprefix(prefix)) from None
    except RuntimeError as error:
        # Torch names the signal only if it has ended the worker just now.
        ended = [p.exitcode for p in getattr(iterator, "_workers", ()) if p.exitcode]
        if not ended or ended[0] > 0:
            raise
        raise RuntimeError(f"{error}, signal: {signal.strsignal(-ended[0])}") from None
    finally:
        if chosen.number:
            _end_workers(cast(Any, iterator))


@contextlib.contextmanager
def explaining_lost_workers(remedy: str) -> Iterator[None]:
    """Raise `CrossvoxError` with the reason if the block ends because a worker was lost.

    Torch notices that within seconds, wherever the process is, and raises a `RuntimeError`.

    Args:
        remedy: what to do, the end of the message.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        found = " ".join(str(error).split())
        unknown = (
            f"lost ({found}); where memory or shared memory (/dev/shm) is used up, take fewer "
            "--compute.workers"
        )
        reasons = [text for name, text in REASONS.items() if f"signal: {name}" in found]
        raise CrossvoxError(
            f"a worker process that makes batches was {(reasons or [unknown])[0]}; {remedy}"
        ) from None


def _keep(batch: Any) -> Any:
    return batch


def _to_bytes(batch: Any) -> bytes:
    return pickle.dumps(batch)


def _end_workers(iterator: Any) -> None:
    """End all workers of an iterator of torch, also those that wait for one that was killed.

    Workers ignore SIGTERM, so the interpreter would wait for them for ever when it exits. Torch
    ends them only when nothing refers to the iterator any more, not even a traceback.
    """
    with _deaf_to_ends():
        if iterator._pin_memory:  # by a thread that waits for a worker's batch to be complete
            iterator._shutdown_workers()
        for process in iterator._workers:
            process.kill()
        for process in iterator._workers:
            process.join()
        iterator._shutdown_workers()


@contextlib.contextmanager
def _deaf_to_ends() -> Iterator[None]:
    """Keep torch from reporting workers that are killed on purpose."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() != threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def on_device(
    feed: Generator[Batch, None, None], move: Callable[[Batch], Batch], device: torch.device
) -> Generator[Batch, None, None]:
    """Yield batches on a device; closes `feed`.

    On a card a batch is copied on a stream of its own, beside the step that still computes when
    the host, which does not wait for it, asks for the next batch.

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
        for batch in feed:
            with torch.cuda.stream(beside):
                moved, copied = move(batch), beside.record_event()
            yield _arrived(moved, copied, device)


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
