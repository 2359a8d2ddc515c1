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


def recoloured(images: Tensor, times: int = 100) -> list[Tensor]:
    torch.manual_seed(0)
    return [recolour(images) for _ in range(times)]


def agreement(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def draws(monkeypatch: pytest.MonkeyPatch, share: float, size: int = 3) -> None:
    """Fix the blend, and the size of all convolutions."""
    sizes = {1: 0.0, 3: 1.0}[size]

    def rand(*shape: object, **options: object) -> Tensor:
        return torch.full((len(ROWS), 1, 1, 1, 1), share) if len(shape) > 1 else torch.tensor(sizes)

    monkeypatch.setattr(torch, "rand", rand)


ROWS = ramps(2)


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


def test_without_a_share_rows_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    draws(monkeypatch, share=0)
    for found in recoloured(ROWS, 5):
        torch.testing.assert_close(found, ROWS)


def test_rows_have_networks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    draws(monkeypatch, share=1)
    for found in recoloured(ROWS, 20):
        assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_grey_values_are_bent_and_not_only_stretched(monkeypatch: pytest.MonkeyPatch) -> None:
    """With convolutions of one voxel, a straight ramp that is only stretched stays straight."""
    draws(monkeypatch, share=1, size=1)
    bends = []
    for found in recoloured(ROWS, 20):
        ramp = found[0, 0, :, 0, 0]
        torch.testing.assert_close(found[0, 0], ramp.view(-1, 1, 1).expand_as(found[0, 0]))
        bends.append(float(ramp.diff().diff().abs().max()))
    assert max(bends) > 0.1


def test_edges_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along an axis in which nothing changes, nothing does after three-voxel convolutions."""
    draws(monkeypatch, share=1, size=3)
    for found in recoloured(ROWS, 20):
        torch.testing.assert_close(found, found[:, :, :, :1, :1].expand_as(found))


def test_a_row_of_one_value_keeps_it() -> None:
    for found in recoloured(torch.full((2, 1, 8, 8, 4), 3.0)):
        torch.testing.assert_close(found, torch.full_like(found, 3.0), rtol=1e-3, atol=1e-3)


def test_mixed_precision_makes_no_difference() -> None:
    exact = recoloured(ROWS, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found, own in zip(recoloured(ROWS, 20), exact, strict=True):
            assert torch.equal(found, own)


@pytest.mark.parametrize(("share", "changed"), [(0.0, False), (1.0, True)])
def test_soft_labels_are_learnt_from_that_share_of_recoloured_crops(
    share: float, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey values that a random network made of them are as if all were 7 here."""
    monkeypatch.setattr("crossvox.methods.cmc_plus.recolour", lambda x: torch.full_like(x, 7.0))
    seen = disturbed(share)
    assert len(seen) == 2
    assert all(bool((image == 7).all()) == changed for image in seen)


def test_rows_are_chosen_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossvox.methods.cmc_plus.recolour", lambda x: torch.full_like(x, 7.0))
    seen = disturbed(0.5, steps=10)
    chosen = [tuple((image == 7).flatten(1).all(1).tolist()) for image in seen]
    assert len(set(chosen)) == 4


def disturbed(share: float, steps: int = 1) -> list[Tensor]:
    """What the student sees of the unlabelled crops, a batch per step and modality."""
    task = make_task(paired=True)
    method, seen = make_method("cmc+", task, recolour=share), []
    together = method.student.together

    def spy(images, same):
        seen.extend(images.values())
        return together(images, same)

    method.student.together = spy
    batch = make_batch(task)
    for _ in range(steps):
        method(batch, 1.0)
    return seen
