"""Numbers of cases and crops that two processes cannot share evenly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from crossvox.methods import METHODS
from crossvox.training.record import read_metrics
from fixtures.methods import make_batch, make_method, make_task
from fixtures.processes.process import begin, ended
from fixtures.processes.process_group import one_of_two, threads_of_groups
from fixtures.run import train_arguments, trained

ROWS = ("--fit.steps", "3", "--sampling.labelled", "4", "--sampling.unlabelled", "4")


def values(run: Path) -> dict[tuple[str, str], float]:
    """Return the logged numbers without times and those that depend on the order of rows."""
    rows = read_metrics(run / "metrics.csv")
    ordered = ("time/", "train/csc_shuffled", "train/csc_content")
    return {(step, name): float(v) for step, name, v in rows if not name.startswith(ordered)}


@pytest.mark.parametrize("kind", ["unpaired", "paired"])
def test_odd_numbers_of_cases_are_trained_on_as_by_one_process(kind, request, tmp_path):
    """Five training cases, three of them labelled, and one validation case."""
    data = request.getfixturevalue(f"{kind}_files").path
    more = (*ROWS, "--labelled", "3", "--store", str(tmp_path / "store"))
    one, two = tmp_path / "one", tmp_path / "two"
    trained(data, one, *more)
    assert ended(begin(train_arguments(data, two, *more), two)) == [0, 0]
    expected, found = values(one), values(two)
    assert ("3", "val/score") in found
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def _without_labels(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    with one_of_two(rank, folder):
        for name in METHODS:
            for paired in (False, True):
                _steps(name, paired, rank)
    assert not threads_of_groups()


def _steps(name: str, paired: bool, rank: int) -> None:
    task = make_task(paired=paired)
    method = make_method(name, task)
    model = DistributedDataParallel(method)  # and no find_unused_parameters
    for lacks in ({}, {"ct"}, {"mr"}, {}):
        batch = make_batch(task, seed=rank, companions=rank == 0)
        for modality in lacks if rank else ():
            del batch.labelled[modality]
        losses = model(batch, progress=0.5)
        both: list = [None, None]
        dist.all_gather_object(both, sorted(losses))
        assert both[0] == both[1], f"{name}: the processes would average different losses"
        losses["loss"].backward()
        trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
        assert not [n for n, p in trained.items() if p.grad is None], name
        for n, p in trained.items():
            mean = p.grad.clone()
            dist.all_reduce(mean)
            torch.testing.assert_close(p.grad, mean / 2, msg=f"{name}: {n} differs by process")
        model.zero_grad()


@pytest.mark.slow
def test_no_method_waits_for_crops_that_a_process_lacks(tmp_path, record_property):
    """One process has no labelled crop of a modality, the other no companion scan."""
    mp.spawn(_without_labels, args=(str(tmp_path),), nprocs=2)
    record_property(
        "methods trained where a process lacks a modality's labelled crops", len(METHODS)
    )
