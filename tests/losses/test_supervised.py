"""Cross-entropy and Dice by hand, with unannotated voxels and classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crossvox.batch import IGNORE
from crossvox.losses.supervised import supervised_loss


def logits_of(p: list[list[float]]) -> Tensor:
    """Logits of one row of voxels in a line: p[c][v] is class c's probability at voxel v."""
    return torch.tensor(p, dtype=torch.float64).log().view(1, len(p), -1, 1, 1)


def line(*classes: int) -> Tensor:
    return torch.tensor(classes).view(1, -1, 1, 1)


# Two voxels, background and one organ: p(organ) = 0.25 and 0.5, truth: background, organ.
P = [[0.75, 0.5], [0.25, 0.5]]
CE = -(math.log(0.75) + math.log(0.5)) / 2
DICE = 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1)


def test_hand_worked_values() -> None:
    x, y = logits_of(P), line(0, 1)
    assert float(supervised_loss(x, y, dice=False)) == pytest.approx(CE)
    assert float(supervised_loss(x, y, ce=False)) == pytest.approx(DICE)
    assert float(supervised_loss(x, y)) == pytest.approx(CE + DICE)


def test_a_perfect_prediction_costs_nothing() -> None:
    y = line(0, 1, 2, 2)
    x = torch.nn.functional.one_hot(y, 3).movedim(-1, 1) * 100.0
    assert float(supervised_loss(x, y)) == pytest.approx(0, abs=1e-6)


def test_ignored_voxels_have_no_say() -> None:
    x, y = logits_of(P), line(0, 1)
    longer = logits_of([[0.75, 0.5, 0.1], [0.25, 0.5, 0.9]]).requires_grad_()
    loss = supervised_loss(longer, torch.cat([y, line(IGNORE)], dim=1))
    assert float(loss.detach()) == pytest.approx(float(supervised_loss(x, y)))
    loss.backward()
    assert longer.grad is not None
    assert torch.equal(longer.grad[..., 2, 0, 0], torch.zeros(1, 2, dtype=torch.float64))


def test_a_wholly_ignored_row_costs_nothing_and_breaks_nothing() -> None:
    x = logits_of(P).requires_grad_()
    loss = supervised_loss(x, line(IGNORE, IGNORE))
    loss.backward()
    assert float(loss.detach()) == 0
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_the_dice_of_a_class_absent_from_the_crop_is_left_out() -> None:
    x = logits_of([[0.5, 0.25], [0.25, 0.5], [0.25, 0.25]])
    expected = 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1)
    assert float(supervised_loss(x, line(0, 1), ce=False)) == pytest.approx(expected)
    assert float(supervised_loss(x, line(0, 0), ce=False)) == 0


def test_rows_count_alike_whatever_their_company() -> None:
    one, other = logits_of(P), logits_of([[0.2, 0.3], [0.8, 0.7]])
    both = supervised_loss(torch.cat([one, other]), torch.cat([line(0, 1), line(1, 1)]))
    alone = supervised_loss(one, line(0, 1)) + supervised_loss(other, line(1, 1))
    assert float(both) == pytest.approx(float(alone) / 2)


def test_classes_that_were_not_outlined_may_hide_in_the_background() -> None:
    # Class 2 was not outlined; where it is likely, the truth says background.
    x = logits_of([[0.15, 0.3], [0.25, 0.5], [0.6, 0.2]])
    annotated = torch.tensor([[True, True, False]])
    expected = supervised_loss(logits_of(P), line(0, 1))
    assert float(supervised_loss(x, line(0, 1), annotated)) == pytest.approx(float(expected))
    assert float(supervised_loss(x, line(0, 1))) > float(expected)


def test_partial_annotation_neither_raises_nor_lowers_the_hidden_class() -> None:
    x = torch.zeros(1, 3, 4, 1, 1, requires_grad=True)
    annotated = torch.tensor([[False, True, False]])  # background is always taken as outlined
    supervised_loss(x, line(0, 0, 0, 1), annotated).backward()
    assert x.grad is not None
    assert torch.allclose(x.grad[:, 0], x.grad[:, 2])
    assert bool((x.grad[:, 1, 3] < 0).all())


def test_a_full_list_of_annotated_classes_is_the_same_as_none() -> None:
    x = torch.randn(2, 3, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    y = torch.randint(-1, 3, (2, 4, 3, 2), generator=torch.Generator().manual_seed(1))
    full = torch.ones(2, 3, dtype=torch.bool)
    assert float(supervised_loss(x, y, full)) == pytest.approx(float(supervised_loss(x, y)))


def test_half_precision_logits_are_scored_in_full() -> None:
    x = torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = torch.randint(0, 3, (1, 8, 8, 8), generator=torch.Generator().manual_seed(1))
    loss = supervised_loss(x, y)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(supervised_loss(x.float(), y)))


def test_balance_lets_small_classes_weigh_more_in_cross_entropy() -> None:
    """Three voxels of background at p, one of class 1 at q: the weights are 3^-b and 1."""
    p, q = math.log(0.9), math.log(0.2)
    x = torch.tensor([[p, p, p, math.log(0.8)], [math.log(0.1)] * 3 + [q]]).view(1, 2, 4, 1, 1)
    y = line(0, 0, 0, 1)
    for balance, weight in ((0.0, 1.0), (0.5, 3**-0.5), (1.0, 1 / 3)):
        expected = -(3 * weight * p + q) / (3 * weight + 1)
        loss = supervised_loss(x, y, dice=False, balance=balance)
        assert float(loss) == pytest.approx(expected)
    ignored = torch.cat([x, x[:, :, :1] * 7], dim=2)
    with_ignored = torch.cat([y, line(IGNORE)], dim=1)
    assert float(supervised_loss(ignored, with_ignored, dice=False, balance=0.5)) == pytest.approx(
        float(supervised_loss(x, y, dice=False, balance=0.5))
    )


def test_all_is_computed_where_the_logits_are() -> None:
    """Tensors of the device `meta` have no values, and do not mix with those of another."""
    x = torch.zeros(2, 3, 4, 3, 2)
    y = torch.ones(2, 4, 3, 2, dtype=torch.int64)
    annotated = torch.tensor([[True, True, False], [True, False, True]])
    expected = float(supervised_loss(x, y, annotated, balance=0.5))
    with torch.device("meta"):  # where tensors land that are sent nowhere
        assert float(supervised_loss(x, y, annotated, balance=0.5)) == expected
