"""Tiny tasks, batches and methods for the tests of networks, losses and methods."""

from __future__ import annotations

import torch
from torch import Tensor

from crossvox.batch import Batch, Task, Triple, View
from crossvox.methods import METHODS, Method
from crossvox.networks.backbone import BACKBONES

# Networks this small lose more to waiting for threads than they gain.
torch.set_num_threads(1)

PATCH = (16, 16, 8)

TINY: dict[str, dict[str, object]] = {
    "unet": {"width": 4, "convs": (1, 1, 1)},
    "universal_unet": {"width": 4, "norm": "batch"},
    "universal_swinunetr": {"feature_size": 12},
    "sam_med3d": {
        "patch_size": 4,
        "embed": 12,
        "depth": 3,
        "heads": 2,
        "window": 3,
        "out_channels": 8,
        "adapter_reduction": 4,
        "width": 4,
        "freeze": "paper",
    },
    "vnet": {"width": 2},
    "vnet_ssl": {"width": 2},
}
"""Backbone → options that make it small; a new backbone is tested by being entered here too."""

CUBE = (16, 16, 16)
CROPS: dict[str, Triple] = {
    "universal_swinunetr": (64, 64, 64),
    "vnet": (32, 32, 32),
    "vnet_ssl": (32, 32, 32),
}
"""Backbone → the smallest crop that CMC can compare channels over, where that is no `CUBE`."""

OWN_NETWORKS = {"mmformer"}
"""Methods that do not use the backbone, which then need no test with each of them."""


def make_task(
    modalities: tuple[str, ...] = ("ct", "mr"),
    classes: tuple[str, ...] = ("liver", "spleen"),
    *,
    paired: bool = False,
    registered: bool = False,
    patch: Triple = PATCH,
) -> Task:
    return Task(
        modalities=modalities,
        classes=classes,
        patch=patch,
        spacing=(2.0, 2.0, 4.0),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
        kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        paired=paired,
        registered=registered,
    )


def make_method(
    name: str, task: Task, seed: int = 0, *, backbone: str = "unet", **options: object
) -> Method:
    torch.manual_seed(seed)
    made = BACKBONES[backbone](task, **TINY[backbone])
    return METHODS[name](task, made, **options)


def awake(method: Method) -> Method:
    """Give all that starts at zero, and so has no say and passes no gradient, random values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in method.parameters():
            if not p.any():
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return method


def crops(rows: int, seed: int, patch: Triple = PATCH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 1, *patch, generator=generator)


def labels(rows: int, n_classes: int, seed: int, patch: Triple = PATCH) -> Tensor:
    """Each class a box, so that every class is there."""
    label = torch.zeros(rows, *patch, dtype=torch.int64)
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
            if not there.any():
                continue  # as in a real batch, a modality that no row has is not named
            row = crops(labelled, 100 * seed + 10 * i + j, task.patch)
            images[m] = row * there.view(-1, 1, 1, 1, 1)
            same[m] = there
        views[anchor] = View(images, same, labels(labelled, task.n_classes, seed + i, task.patch))
    images = {
        m: crops(unlabelled, 100 * seed + 50 + j, task.patch) for j, m in enumerate(task.modalities)
    }
    same = {
        m: torch.full((unlabelled,), task.paired or j == 0) for j, m in enumerate(task.modalities)
    }
    return Batch(step=0, labelled=views, unlabelled=View(images, same) if unlabelled else None)


def gradients(method: Method, loss: Tensor) -> dict[str, bool]:
    """Which parameters the loss has a non-zero gradient for."""
    named = {name: p for name, p in method.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {
        name: g is not None and bool(g.abs().sum() > 0)
        for name, g in zip(named, found, strict=True)
    }
