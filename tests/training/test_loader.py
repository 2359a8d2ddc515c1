"""Batches in order, from this process or from workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data import Dataset

from crossvox.errors import DataError
from crossvox.training.loader import batches, on_device
from fixtures.methods import make_batch, make_task
from fixtures.processes.training import ToyData


class Slow(Dataset):
    """Takes 0.1 s to load a batch."""

    def __getitem__(self, step):
        time.sleep(0.1)
        return ToyData()[step]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_leave_the_generator_alone(workers):
    before = torch.get_rng_state()
    found = list(batches(ToyData(), range(3, 8), workers))
    assert [batch.step for batch in found] == [3, 4, 5, 6, 7]
    expected = ToyData()[7].labelled["ct"].images["ct"]
    assert torch.equal(found[-1].labelled["ct"].images["ct"], expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_one_line_and_leaves_no_worker(workers):
    with pytest.raises(DataError) as caught:
        list(batches(ToyData(crash=2), range(9), workers))
    assert str(caught.value) == "step 2 crashed"
    # The error is still referenced, and so are all frames of its traceback.
    assert multiprocessing.active_children() == []


def test_leaving_early_leaves_no_worker():
    with contextlib.closing(batches(ToyData(), range(99), 2)) as feed:
        next(feed)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_workers_outlive_the_signals_that_stop_a_run():
    with contextlib.closing(batches(Slow(), range(12), 2)) as feed:
        next(feed)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGINT)
        assert [batch.step for batch in feed] == list(range(1, 12))


class Card:
    """Stand-ins for CUDA's streams and events, and a record of what happens in which order."""

    def __init__(self, monkeypatch):
        self.log: list[str] = []
        self.events = 0
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)

    def record_event(self) -> int:
        self.events += 1
        return self.events - 1

    def wait_event(self, event: int) -> None:
        self.log.append(f"wait {event}")

    def move(self, batch):
        self.log.append(f"copy {batch.step}")
        return batch


def test_a_batch_is_copied_when_it_is_asked_for_and_its_own_step_waits_for_it(monkeypatch):
    card = Card(monkeypatch)
    for batch in on_device(batches(ToyData(), range(3)), card.move, torch.device("cuda")):
        card.log.append(f"step {batch.step}")
    assert card.log == [
        *("copy 0", "wait 0", "step 0"),
        *("copy 1", "wait 1", "step 1"),
        *("copy 2", "wait 2", "step 2"),
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_leaving_a_device_early_leaves_no_worker(monkeypatch, device):
    card = Card(monkeypatch)
    feed = batches(ToyData(), range(99), 2)
    with contextlib.closing(on_device(feed, card.move, torch.device(device))) as moved:
        assert next(moved).step == 0
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_broken_batch_does_not_cost_the_step_before(monkeypatch, device):
    feed = batches(ToyData(crash=1), range(2))
    moved = on_device(feed, Card(monkeypatch).move, torch.device(device))
    assert next(moved).step == 0
    with pytest.raises(DataError):
        next(moved)


def test_every_tensor_of_a_batch_is_pinned_and_nothing_else_changes(monkeypatch):
    task = make_task(paired=True)
    batch = make_batch(task)
    batch.labelled["ct"].annotated = torch.ones(2, 3, dtype=torch.bool)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    pinned = batch.pin_memory()
    before, after = tensors_of(batch), tensors_of(pinned)
    assert len(before) == len(after) == 9
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other) and one is not other
    assert (pinned.step, pinned.names) == (batch.step, batch.names)


def tensors_of(batch):
    found = []
    batch.map(lambda tensor: found.append(tensor) or tensor)
    return found
