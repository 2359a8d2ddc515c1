"""Crops in other grey values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.networks.recolour import recolour
from helpers_methods import make_batch, make_method, make_task


def ramps(rows: int = 4) -> Tensor:
    """The same rising grey values along the first axis in each row."""
    ramp = torch.linspace(-1, 3, 16).view(1, 1, 16, 1, 1)
    return ramp.expand(rows, 1, 16, 8, 4).contiguous()


def recoloured(images: Tensor, times: int = 40) -> list[Tensor]:
    torch.manual_seed(0)
    return [recolour(images) for _ in range(times)]


def agreement(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_rows_keep_their_mean_and_spread() -> None:
    images = ramps(2) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1, 1) + 2
    for found in recoloured(images):
        for own, before in zip(found, images, strict=True):
            torch.testing.assert_close(own.mean(), before.mean(), rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(own.std(), before.std(), rtol=1e-3, atol=1e-3)


def test_dark_may_become_bright_and_much_may_stay_as_it_was() -> None:
    images = ramps(1)
    found = [agreement(own, images) for own in recoloured(images)]
    assert min(found) < 0 and max(found) > 0.99


def test_rows_have_networks_of_their_own() -> None:
    for found in recoloured(ramps(2)):
        assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_a_row_of_one_value_keeps_it() -> None:
    for found in recoloured(torch.full((2, 1, 8, 8, 4), 3.0)):
        torch.testing.assert_close(found, torch.full_like(found, 3.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("share", "changed"), [(0.0, False), (1.0, True)])
def test_soft_labels_are_learnt_from_that_share_of_recoloured_crops(
    share: float, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey values that a random network made of them are as if all were 7 here."""
    monkeypatch.setattr("crossvox.methods.cmc_plus.recolour", lambda x: torch.full_like(x, 7.0))
    task = make_task(paired=True)
    method, seen = make_method("cmc+", task, recolour=share), []
    together = method.student.together

    def spy(images, same):
        seen.extend(images.values())
        return together(images, same)

    method.student.together = spy
    method(make_batch(task), 1.0)
    assert len(seen) == 2
    assert all(bool((image == 7).all()) == changed for image in seen)
