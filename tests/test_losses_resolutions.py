"""One loss at several resolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.batch import IGNORE
from crossvox.losses.resolutions import over_resolutions
from crossvox.losses.supervised import supervised_loss


def test_a_single_resolution_is_the_loss_itself() -> None:
    logits, label = torch.randn(2, 3, 8, 8, 4), torch.randint(0, 3, (2, 8, 8, 4))
    expected = supervised_loss(logits, label)
    assert over_resolutions(supervised_loss, [logits], label, 0.5) == (expected, expected)


def test_each_resolution_counts_half_of_the_one_before() -> None:
    sizes = [(8, 8, 4), (4, 4, 4), (2, 2, 2)]
    values = iter([1.0, 3.0, 7.0])
    logits = [torch.zeros(1, 2, *size) for size in sizes]
    label = torch.zeros(1, 8, 8, 4)
    found, finest = over_resolutions(lambda *_: torch.tensor(next(values)), logits, label, 0.5)
    assert float(found) == pytest.approx((1.0 + 3.0 / 2 + 7.0 / 4) / (1 + 1 / 2 + 1 / 4))
    assert float(finest) == 1.0


def test_coarse_logits_meet_the_voxels_next_to_their_centres() -> None:
    label = torch.randint(IGNORE, 4, (2, 8, 6, 4), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        assert truth.shape == (len(logits), *logits.shape[2:])
        assert truth.dtype == label.dtype
        seen.append(truth)
        return logits.sum()

    fine, coarse = torch.zeros(2, 4, 8, 6, 4), torch.zeros(2, 4, 4, 3, 4)
    over_resolutions(loss, [fine, coarse], label, 0.5)
    assert torch.equal(seen[0], label)
    assert torch.equal(seen[1], label[:, 1::2, 1::2])
