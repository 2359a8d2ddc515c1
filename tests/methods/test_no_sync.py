"""No step of a method asks its device for a value, so that on a GPU none waits for it.

The steps run on tensors that have shapes and types but no values, under the CPU's autocast to bf16,
whose list of operations is not quite a GPU's. `make test` tries each method on U-Nets, and each
other backbone with `sup_joint` and `cmc`; `make test-slow` tries all combinations.
"""

from __future__ import annotations

import dataclasses
import operator

import pytest
import torch

from crossvox.batch import Task, Triple
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
from crossvox.utils.rows import row_mask
from fixtures.methods import CROPS, CUBE, OWN_NETWORKS, make_batch, make_method, make_task
from fixtures.no_values import without_values

TASKS = {
    "single": make_task(("ct",)),
    "unpaired": make_task(),
    "paired": make_task(paired=True),
    "registered": make_task(paired=True, registered=True),
}


def task_of(kind: str, patch: Triple) -> Task:
    """A task of two levels, with one class of one piece, whose scans were aligned if paired."""
    task = TASKS[kind]
    strides, kernels = ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3))
    return dataclasses.replace(
        task,
        patch=patch,
        strides=strides,
        kernels=kernels,
        one_piece=("liver",),
        aligned=task.paired,
    )


PROGRESS = {"single": 1.0, "unpaired": 0.0, "paired": 1.0, "registered": 1.0}
"""Task → share of the training that is done: all terms of a method apply at its end."""

QUICK = {("sup_joint", "single"), ("cmc", "unpaired")}
OTHERS = [(n, k, b) for b in BACKBONES if b != "unet" for n in METHODS for k in TASKS]
"""Combinations of which a few are tested each time: networks and methods meet nowhere else."""


@pytest.mark.parametrize(
    ("name", "kind", "backbone"),
    [(n, k, "unet") for n in METHODS for k in TASKS if k != "single"]
    + [
        pytest.param(n, k, b, marks=[] if (n, k) in QUICK else [pytest.mark.slow])
        for n, k, b in OTHERS
        if n not in OWN_NETWORKS
    ],
)
def test_a_step_needs_no_value_and_keeps_its_precision(name: str, kind: str, backbone: str) -> None:
    patch = (8, 8, 8) if backbone == "unet" else CROPS.get(backbone, CUBE)
    task = task_of(kind, patch)
    made, batch = make_method(name, task, backbone=backbone), make_batch(task)
    assert batch.unlabelled is not None
    # A row of two subjects beside one that may be of one.
    batch.unlabelled.same_subject[task.modalities[-1]] = (False, task.paired)
    with without_values(made, batch) as (method, faked, watch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = method(faked, PROGRESS[kind])
        assert {value.dtype for value in losses.values()} == {torch.float32}
        assert all(value.shape == () for value in losses.values())
        method.after_step()
    assert watch.types == {torch.bfloat16}, "convolutions left autocast"


@pytest.mark.parametrize(
    "ask",
    [
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.numpy,
        torch.nonzero,
        torch.unique,
        bool,
        float,
        lambda x: x[x > 0],
        lambda x: operator.setitem(x, x > 0, torch.zeros(1)),
        lambda x: torch.equal(x, x),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.to(device=x.device),
        lambda x: x.to(torch.device("cpu"), torch.float64),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.as_tensor([1.0], device=x.device),
        lambda x: torch.multinomial(x, 1),
        lambda x: torch.linalg.inv(x[:, None]),
        lambda x: torch.linalg.svd(x[:, None]),
        lambda x: x.repeat_interleave(torch.ones_like(x, dtype=torch.int64)),
    ],
)
def test_asking_for_a_value_is_noticed(ask) -> None:
    task = task_of("unpaired", (8, 8, 8))
    with without_values(make_method("sup", task), make_batch(task)) as (_, batch, _):
        image = batch.labelled["ct"].images["ct"]
        with pytest.raises((AssertionError, RuntimeError)):
            ask(image.flatten()[:1])


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.multinomial(torch.ones_like(x), 1),
    ],
)
def test_a_method_that_asks_in_its_step_is_noticed(ask, monkeypatch) -> None:
    task = task_of("unpaired", (8, 8, 8))
    made, forward = make_method("sup", task), METHODS["sup"].forward

    def asking(self, batch, progress):
        losses = forward(self, batch, progress)
        ask(losses["loss"][None])
        return losses

    monkeypatch.setattr(METHODS["sup"], "forward", asking)
    with (
        without_values(made, make_batch(task)) as (method, batch, _),
        pytest.raises(AssertionError),
    ):
        method(batch, 0.5)


def test_copies_that_wait_for_nothing_pass() -> None:
    task = task_of("unpaired", (8, 8, 8))
    with without_values(make_method("sup", task), make_batch(task)) as (_, batch, _):
        image = batch.labelled["ct"].images["ct"]
        assert image.to(torch.float64).dtype == torch.float64
        assert row_mask((True, False), image.device).shape == (2,)
    assert torch.ones(1).cpu().to("cpu").tolist() == [1.0]
