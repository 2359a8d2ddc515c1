"""Translators, discriminators and the losses that train them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from crossvox.methods.umml.translation import (
    CycleTranslation,
    Discriminator,
    Translator,
    reduction,
)
from fixtures.methods import crops, make_task

TASK = make_task()


def made(modalities: tuple[str, ...] = ("ct", "mr")) -> CycleTranslation:
    torch.manual_seed(0)
    return CycleTranslation(make_task(modalities), 4)


def constant(translation: CycleTranslation, scores: list[float], values: dict[str, float]) -> None:
    """Discriminators that always answer `scores`, translators that always give `values`."""
    layers = [
        (critic.layers[-1], score)
        for critic, score in zip(translation.discriminators, scores, strict=True)
    ]
    layers += [(translation.translators[way].tone[-1], value) for way, value in values.items()]
    with torch.no_grad():
        for layer, value in layers:
            layer.weight.zero_()
            layer.bias.fill_(value)


def test_losses_by_hand() -> None:
    # D_ct says 0.2 and D_mr 0.5, whatever they see. CT as MR: (0.5 − 1)² = 0.25, MR as CT:
    # (0.2 − 1)² = 0.64. D_ct: ½ (0.64 real + 0.04 not), D_mr: ½ (0.25 + 0.25). CT's way
    # there and back ends at −0.1 and misses the 0.5 by 0.6, MR's at 0.3 and misses the 1 by 0.7.
    translation = made()
    constant(translation, [0.2, 0.5], {"0_1": 0.3, "1_0": -0.1})
    images = {"ct": torch.full((2, 1, *TASK.patch), 0.5), "mr": torch.ones(3, 1, *TASK.patch)}
    fakes, losses = translation(images)
    torch.testing.assert_close(fakes["ct"], torch.full_like(fakes["ct"], 0.3))
    torch.testing.assert_close(fakes["mr"], torch.full_like(fakes["mr"], -0.1))
    found = {name: float(v.detach()) for name, v in losses.items()}
    assert found["gan"] == pytest.approx((0.25 + 0.64) / 2)
    assert found["discriminator"] == pytest.approx((0.34 + 0.25) / 2)
    assert found["cycle"] == pytest.approx((0.6 + 0.7) / 2)


def reached(translation: CycleTranslation, loss: Tensor) -> set[str]:
    named = dict(translation.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {name.split(".")[0] for name, g in zip(named, found, strict=True) if g is not None}


def test_each_loss_trains_its_own_side() -> None:
    translation = made()
    _, losses = translation({"ct": crops(2, 0), "mr": crops(2, 1)})
    assert reached(translation, losses["gan"]) == {"translators"}
    assert reached(translation, losses["cycle"]) == {"translators"}
    assert reached(translation, losses["discriminator"]) == {"discriminators"}


def test_more_than_two_modalities_form_a_ring() -> None:
    translation = made(("a", "b", "c", "d"))
    assert [translation.target(m) for m in "abcd"] == ["b", "c", "d", "a"]
    assert set(translation.translators) == {
        *("0_1", "1_2", "2_3", "3_0"),
        *("1_0", "2_1", "3_2", "0_3"),
    }


def test_one_modality_alone_can_be_given() -> None:
    fakes, losses = made()({"mr": crops(1, 0)})
    assert set(fakes) == {"mr"}
    assert all(torch.isfinite(v) for v in losses.values())


def test_learns_a_change_of_contrast() -> None:
    torch.manual_seed(0)
    translation = CycleTranslation(TASK, 8)
    # MR is CT with its contrast inverted: bright where that is dark.
    blob = torch.zeros(1, 1, *TASK.patch)
    blob[..., 4:10, 4:10, 2:6] = 2
    optimiser = torch.optim.Adam(translation.parameters(), lr=5e-3, betas=(0.5, 0.999))
    for step in range(120):
        ct, mr = (0.3 * crops(2, 10 * step + k) for k in (1, 2))
        images = {"ct": ct + blob - 1, "mr": mr + 1 - blob}
        fakes, losses = translation(images)
        weighted = [translation.WEIGHTS[name] * v for name, v in losses.items()]
        optimiser.zero_grad()
        torch.stack(weighted).sum().backward()
        optimiser.step()
    fake, inside = fakes["ct"].detach(), (blob > 0).expand_as(ct)
    assert fake[inside].mean() < fake[~inside].mean() - 0.5


@pytest.mark.parametrize(
    ("patch", "spacing", "expected"),
    [
        ((16, 16, 8), (2.0, 2.0, 4.0), (2, 2, 1)),
        ((40, 40, 32), (3.0, 3.0, 4.0), (2, 2, 2)),
        ((15, 16, 2), (1.0, 1.0, 1.0), (1, 2, 1)),
    ],
)
def test_keeps_size_and_spares_coarse_axes(
    patch: tuple[int, int, int],
    spacing: tuple[float, float, float],
    expected: tuple[int, int, int],
) -> None:
    task = replace(TASK, patch=patch, spacing=spacing)
    assert reduction(task) == expected
    x = crops(2, 0, patch)
    assert Translator(task, 4)(x).shape == x.shape
    assert Discriminator(task, 4)(x).shape[:2] == (2, 1)
