"""Changes of a crop's intensities: what each does, and that a seed repeats them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from crossvox.data.crops.intensities import IntensityAugmentation
from crossvox.data.crops.settings import Augment
from crossvox.errors import UsageError

ALWAYS = Augment(
    brightness=0, contrast=0, gamma=1, noise=0, blur=0, low_resolution=1, invert=0, probability=1
)
CROP = torch.rand(1, 16, 16, 8, generator=torch.Generator().manual_seed(0))


def changed(seed: int = 0, **strengths: float) -> Tensor:
    return IntensityAugmentation(dataclasses.replace(ALWAYS, **strengths))(CROP, seed)


@pytest.mark.parametrize(
    "strengths",
    [{"brightness": 0.2}, {"contrast": 0.2}, {"gamma": 2}, {"noise": 0.1}, {"blur": 1.0},
     {"low_resolution": 2}, {"gamma": 2, "invert": 1}],
    ids=lambda s: list(s)[-1],
)  # fmt: skip
def test_a_seed_repeats_a_change_and_another_makes_another(strengths: dict[str, float]) -> None:
    assert torch.equal(changed(1, **strengths), changed(1, **strengths))
    assert not torch.equal(changed(1, **strengths), CROP)
    assert not torch.equal(changed(1, **strengths), changed(2, **strengths))
    assert changed(1, **strengths).shape == CROP.shape


def test_nothing_is_changed_where_all_strengths_are_nought() -> None:
    assert torch.equal(changed(), CROP)


def test_a_coarsened_crop_loses_detail_and_keeps_its_mean() -> None:
    coarse = torch.stack([changed(seed, low_resolution=4) for seed in range(8)]).mean(0)
    assert coarse.diff(dim=1).abs().mean() < 0.5 * CROP.diff(dim=1).abs().mean()
    assert abs(coarse.mean() - CROP.mean()) < 0.02


def test_an_inverted_curve_is_that_of_the_negative() -> None:
    curve, negative = changed(3, gamma=2), changed(3, gamma=2, invert=1)
    low, width = CROP.min(), CROP.max() - CROP.min()
    share, bent = (CROP - low) / width, (curve - low) / width
    middle = (share - 0.5).abs().argmin()
    exponent = bent.flatten()[middle].log() / share.flatten()[middle].log()
    mirrored = 1 - (1 - share) ** exponent
    torch.testing.assert_close(negative, low + width * mirrored, atol=1e-3, rtol=0)


def test_strengths_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match=r"augment\.low_resolution"):
        Augment(low_resolution=0.5)
    with pytest.raises(UsageError, match=r"augment\.invert"):
        Augment(invert=2)
