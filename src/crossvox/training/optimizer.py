"""Optimiser and learning rate; the rate is a function of the step, so a resume needs no state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch.optim import Optimizer

OptimizerName = Literal["adam", "adamw"]
Schedule = Literal["constant", "poly"]


def build_optimizer(
    groups: Iterable[dict[str, Any]], name: OptimizerName, lr: float, weight_decay: float
) -> Optimizer:
    """Adam or AdamW over parameter groups; a group's own "lr" or "weight_decay" wins."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    optimizer = kind(list(groups), lr=lr, weight_decay=weight_decay)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def factor(schedule: Schedule, step: int, steps: int, warmup: float = 0.0) -> float:
    """What the learning rate is multiplied by in step t = 0, 1, …, T − 1.

    "constant" is 1, "poly" is (1 − t/T)^0.9 (DeepLab; the habit of medical segmentation). In the
    first `warmup`·T steps it is also multiplied by (t + 1)/(`warmup`·T), at most 1: Adam's first
    steps are as long as the rate whatever the gradient, on moments of hardly any batches.
    """
    decay = 1.0 if schedule == "constant" else (1.0 - step / steps) ** 0.9
    rising = warmup * steps
    return decay if step + 1 >= rising else decay * (step + 1) / rising


def set_rate(optimizer: Optimizer, multiplier: float) -> float:
    """Give each group its initial rate times `multiplier`; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * multiplier
    return optimizer.param_groups[0]["lr"]
