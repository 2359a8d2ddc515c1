"""Gathered rows as one process sees them; methods/cmc/test_cac.py runs two processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.losses import distributed
from crossvox.losses.distributed import gather_rows, world_size


@pytest.fixture
def third_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of three ranks; rank r holds r/2 times the values of this one."""

    def all_gather(parts: list[Tensor], own: Tensor) -> None:
        assert own.is_contiguous() and len(parts) == 3
        for rank, part in enumerate(parts):
            assert part.is_contiguous()
            part.copy_(rank * own / 2)

    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_gather", all_gather)


def test_alone_nothing_is_gathered() -> None:
    x = torch.ones(2, 3)
    assert world_size() == 1 and gather_rows(x) is x


def test_rows_come_in_rank_order(third_of_three: None) -> None:
    x = torch.arange(6.0).view(3, 2).T
    assert world_size() == 3
    found = gather_rows(x)
    torch.testing.assert_close(found, torch.cat([0 * x, x / 2, x]))


def test_the_gradient_is_that_of_the_own_rows_times_the_ranks(third_of_three: None) -> None:
    x = torch.ones(2, 2, requires_grad=True)
    weights = torch.arange(12.0).view(6, 2)
    (gather_rows(x) * weights).sum().backward()
    torch.testing.assert_close(x.grad, 3 * weights[4:])
