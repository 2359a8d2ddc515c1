"""No step of a method asks its device for a value, so that on a GPU none waits for it.

The steps run on tensors that have shapes and types but no values, under the autocast of a GPU.
"""

from __future__ import annotations

import dataclasses
import operator

import pytest
import torch

from crossvox.batch import Task, Triple
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
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

OTHERS = [(n, k, b) for b in BACKBONES if b != "unet" for n in METHODS for k in TASKS]
"""Combinations of which a few are tested each time: networks and methods meet nowhere else."""


@pytest.mark.parametrize(
    ("name", "kind", "backbone"),
    [(n, k, "unet") for n in METHODS for k in TASKS if k != "single"]
    + [
        pytest.param(n, k, b, marks=[] if (n, k) == ("sup_joint", "single") else [pytest.mark.slow])
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
    ],
)
def test_asking_for_a_value_is_noticed(ask) -> None:
    task = task_of("unpaired", (8, 8, 8))
    with without_values(make_method("sup", task), make_batch(task)) as (_, batch, _):
        image = batch.labelled["ct"].images["ct"]
        with pytest.raises((AssertionError, RuntimeError)):
            ask(image.flatten()[:1])
