"""Rows that Python values choose are taken, put back and mixed, with their gradients."""

from __future__ import annotations

import pytest
import torch

from crossvox.utils.rows import both, choose_rows, either, row_mask, spread_rows, take_rows

CPU = torch.device("cpu")
CHOICES = [(True, False, True), (False, False, True), (True, True, True), (False, False, False)]


@pytest.mark.parametrize("rows", CHOICES[:3])
def test_taken_rows_are_put_back_where_they_were(rows):
    x = torch.arange(1.0, 7).view(3, 2).requires_grad_()
    taken = take_rows(x, rows)
    assert torch.equal(taken, x[torch.tensor(rows)])
    spread = spread_rows(taken, rows)
    assert torch.equal(spread, x * torch.tensor(rows).view(3, 1))
    (gradient,) = torch.autograd.grad(spread.square().sum(), x)
    assert torch.equal(gradient, 2 * spread)


@pytest.mark.parametrize("rows", CHOICES)
def test_rows_are_chosen_from_either_tensor(rows):
    x, other = torch.ones(3, 2, 1), torch.zeros(3, 2, 1)
    chosen = choose_rows(rows, x, other)
    assert chosen[:, 0, 0].tolist() == list(map(float, rows))
    assert chosen.shape == x.shape


def test_masks_and_what_two_choices_share():
    assert both((True, True, False), (True, False, False)) == (True, False, False)
    assert either((True, False, False), (False, False, True)) == (True, False, True)
    assert row_mask([(True, False)], CPU).tolist() == [[True, False]]
    assert row_mask((), CPU).dtype == torch.bool
