"""Class-balanced pseudo-labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.batch import IGNORE
from crossvox.losses.pseudo_labels import class_balanced_labels


def line(*p: float) -> Tensor:
    """Two classes along a line, from the probability of the second."""
    second = torch.tensor(p)
    return torch.stack([1 - second, second]).view(1, 2, -1, 1, 1)


def test_each_class_keeps_its_surest_voxels() -> None:
    # Class 0 is found with confidences 0.9, 0.8, 0.7, 0.95, class 1 with 0.55 and 0.6; half of
    # each are the 0.9 and 0.95, and the 0.6, though every voxel of class 0 is surer than that.
    found = class_balanced_labels(line(0.1, 0.2, 0.3, 0.05, 0.55, 0.6), 0.5)
    assert found.flatten().tolist() == [0, IGNORE, IGNORE, 0, IGNORE, 1]


@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 100), (0.8, 80), (0.2, 20), (0.001, 1)])
def test_keeps_the_fraction_asked_for_and_never_nothing(fraction: float, kept: int) -> None:
    p = line(*(0.001 * torch.arange(100) + 0.6).tolist())
    assert int((class_balanced_labels(p, fraction) != IGNORE).sum()) == kept


def test_the_number_kept_is_not_rounded_twice() -> None:
    # 0.3 of 95 is 28.5 in double precision, whose even neighbour is 28, and more in single.
    p = line(*(0.001 * torch.arange(95) + 0.6).tolist())
    assert int((class_balanced_labels(p, 0.3) != IGNORE).sum()) == 28


def test_gives_no_gradient() -> None:
    p = line(0.1, 0.7).requires_grad_()
    assert not class_balanced_labels(p, 1.0).requires_grad


@pytest.mark.parametrize("fraction", [0.0, 1.1])
def test_refuses_other_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        class_balanced_labels(line(0.1), fraction)


def test_every_class_is_labelled_however_small_the_crop() -> None:
    p = torch.tensor([[0.1, 0.2, 0.7]]).view(1, 3, 1, 1, 1)
    assert class_balanced_labels(p, 1.0).item() == 2


@pytest.mark.parametrize("fraction", [0.05, 0.37, 0.5, 1.0])
def test_a_threshold_per_class_says_which_voxels_are_kept(fraction: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, 6, 5, 4, generator=generator)
    logits[:, 3] -= 20  # a class that no voxel has
    p = logits.mul(3).softmax(1).mul(50).round().div(50)  # with ties
    confidence, label = p.max(1)
    expected = torch.full_like(label, IGNORE)
    for c in label.unique().tolist():
        values = confidence[label == c].sort(descending=True).values
        threshold = values[max(1, round(fraction * len(values))) - 1]
        expected[(label == c) & (confidence >= threshold)] = c
    assert torch.equal(class_balanced_labels(p, fraction), expected)
