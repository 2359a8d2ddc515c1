"""Tiny tasks, batches and methods for the tests of networks, losses and methods."""

from __future__ import annotations

import torch
from torch import Tensor

from crossvox.batch import Batch, Task, View
from crossvox.methods import METHODS, Method
from crossvox.networks.unet import UNetBackbone

# Networks this small lose more to waiting for threads than they gain.
torch.set_num_threads(1)

PATCH = (16, 16, 8)


def make_task(
    modalities: tuple[str, ...] = ("ct", "mr"),
    classes: tuple[str, ...] = ("liver", "spleen"),
    *,
    paired: bool = False,
    registered: bool = False,
) -> Task:
    return Task(
        modalities=modalities,
        classes=classes,
        patch=PATCH,
        spacing=(2.0, 2.0, 4.0),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
        kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        paired=paired,
        registered=registered,
    )


def make_method(name: str, task: Task, seed: int = 0, **options: object) -> Method:
    torch.manual_seed(seed)
    backbone = UNetBackbone(task, width=4, convs=(1, 1, 1))
    return METHODS[name](task, backbone, **options)  # type: ignore[arg-type]


def awake(method: Method) -> Method:
    """Give all that starts at zero, and so has no say and passes no gradient, random values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in method.parameters():
            if not p.any():
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return method


def crops(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 1, *PATCH, generator=generator)


def labels(rows: int, n_classes: int, seed: int) -> Tensor:
    """Each class a box, so that every class is there."""
    label = torch.zeros(rows, *PATCH, dtype=torch.int64)
    for c in range(1, n_classes):
        start = 2 + 5 * (c - 1) + seed % 2
        label[:, start : start + 4, 3:12, 2:6] = c
    return label


def make_batch(
    task: Task, labelled: int = 2, unlabelled: int = 2, seed: int = 0, companions: bool = True
) -> Batch:
    """A step; on paired tasks the first labelled row has all companions and the last has none."""
    views = {}
    for i, anchor in enumerate(task.modalities):
        images, same = {}, {}
        for j, m in enumerate(task.modalities):
            there = torch.full((labelled,), m == anchor)
            if task.paired and companions:
                there[0] = True
            images[m] = crops(labelled, 100 * seed + 10 * i + j) * there.view(-1, 1, 1, 1, 1)
            same[m] = there
        views[anchor] = View(images, same, labels(labelled, task.n_classes, seed + i))
    images = {m: crops(unlabelled, 100 * seed + 50 + j) for j, m in enumerate(task.modalities)}
    same = {
        m: torch.full((unlabelled,), task.paired or j == 0) for j, m in enumerate(task.modalities)
    }
    return Batch(step=0, labelled=views, unlabelled=View(images, same) if unlabelled else None)


def gradients(method: Method, loss: Tensor) -> dict[str, bool]:
    """Which parameters the loss has a non-zero gradient for."""
    named = dict(method.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {
        name: g is not None and bool(g.abs().sum() > 0)
        for name, g in zip(named, found, strict=True)
    }
