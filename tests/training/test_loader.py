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
from crossvox.training.loader import batches
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
