"""Optimiser and learning-rate schedule, a function of the step that needs no state to resume."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from crossvox.training.settings import OptimizerName, Schedule


def build_optimizer(
    groups: Iterable[dict[str, Any]],
    name: OptimizerName,
    lr: float,
    weight_decay: float,
    device: torch.device,
) -> Optimizer:
    """Return Adam or AdamW; a parameter group's own "lr" or "weight_decay" wins.

    On a CPU one kernel updates a parameter, which is faster than torch's default. On a card, where
    it would forbid clipping in half precision, the default stays.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    fused = True if device.type == "cpu" else None
    optimizer = kind(list(groups), lr=lr, weight_decay=weight_decay, fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def split_new(
    groups: Iterable[dict[str, Any]], loaded: Collection[Parameter], lr: float
) -> list[dict[str, Any]]:
    """Give the parameters that are not `loaded` the rate `lr`, in groups of their own.

    Groups with a rate of their own keep it.
    """
    result = []
    for group in groups:
        if "lr" in group:
            result.append(group)
            continue
        kept = [p for p in group["params"] if p in loaded]
        new = [p for p in group["params"] if p not in loaded]
        result += [{**group, "params": kept}] if kept else []
        result += [{**group, "params": new, "lr": lr}] if new else []
    return result


def lr_factor(schedule: Schedule, step: int, steps: int, warmup: float = 0.0) -> float:
    """Return the factor on the learning rate in step t = 0, 1, …, T − 1.

    "constant" is 1; "poly" is (1 − t/T)^0.9 (DeepLab, customary in medical segmentation). During
    the first `warmup`·T steps the factor is also multiplied by (t + 1)/(`warmup`·T). Warm-up helps
    Adam, whose first steps have the full length whatever the gradient is.
    """
    decay = 1.0 if schedule == "constant" else (1.0 - step / steps) ** 0.9
    warm = warmup * steps
    return decay if step + 1 >= warm else decay * (step + 1) / warm


def set_lr(optimizer: Optimizer, multiplier: float) -> float:
    """Set each group's rate to its initial rate times `multiplier`; return the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * multiplier
    return optimizer.param_groups[0]["lr"]
