"""Learning-rate schedule and parameter groups against hand-worked numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossvox.training.optimizer import build_optimizer, lr_factor, set_lr, split_new

CPU = torch.device("cpu")


def test_poly_schedule_by_hand():
    assert lr_factor("poly", 0, 10) == 1.0
    assert lr_factor("poly", 5, 10) == pytest.approx(0.535887)
    assert lr_factor("constant", 9, 10) == 1.0


def test_rate_rises_by_hand():
    rates = [lr_factor("constant", step, 8, warmup=0.5) for step in range(8)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert lr_factor("poly", 1, 8, warmup=0.5) == pytest.approx(0.5 * (7 / 8) ** 0.9)
    assert lr_factor("poly", 5, 8, warmup=0.5) == lr_factor("poly", 5, 8)


def test_rise_shorter_than_a_step_is_none():
    assert lr_factor("constant", 0, 400, warmup=0.001) == 1.0


def test_groups_keep_the_ratio_of_their_rates():
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": one.parameters()}, {"params": two.parameters(), "lr": 0.3}]
    optimizer = build_optimizer(groups, "adamw", 0.1, 0.0, CPU)
    for multiplier in (1.0, 0.5, 0.25):
        assert set_lr(optimizer, multiplier) == pytest.approx(0.1 * multiplier)
        assert optimizer.param_groups[1]["lr"] == pytest.approx(0.3 * multiplier)


def test_weight_decay_is_decoupled_in_adamw_only():
    weights = {}
    for name in ("adam", "adamw"):
        weight = nn.Parameter(torch.tensor([2.0]))
        optimizer = build_optimizer([{"params": [weight]}], name, 0.1, 0.5, CPU)
        weight.grad = torch.zeros(1)
        optimizer.step()
        weights[name] = weight.item()
    # AdamW shrinks by lr·wd; Adam takes a full step of lr along the gradient of the decay.
    assert weights == pytest.approx({"adam": 1.9, "adamw": 2.0 * (1 - 0.1 * 0.5)})


def test_new_parameters_get_their_rate_unless_their_group_has_one() -> None:
    old, new, own = (torch.nn.Parameter(torch.ones(1)) for _ in range(3))
    groups = [{"params": [old, new], "weight_decay": 0.5}, {"params": [own], "lr": 3.0}]
    split = split_new(groups, {old}, 0.25)
    optimizer = build_optimizer(split, "adam", 0.125, 0.0, CPU)
    rates = {id(g["params"][0]): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert rates == {id(old): (0.125, 0.5), id(new): (0.25, 0.5), id(own): (3.0, 0.0)}
    assert [len(group["params"]) for group in split_new(groups, {old, new}, 1.0)] == [2, 1]
