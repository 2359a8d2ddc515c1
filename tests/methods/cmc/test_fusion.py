"""The fusion layer, with modalities present and absent."""

from __future__ import annotations

import pytest
import torch

from crossvox.methods.cmc.fusion import Fusion
from fixtures.tensors import noise, randomise


def test_fusion_starts_as_nothing() -> None:
    x = noise(2, 4, 4, 4, 3)
    fused = Fusion(4, 2)([x, x], torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(fused, torch.zeros_like(x))


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_fusion_fills_absent_places_with_the_mean_of_those_present(modalities: int) -> None:
    fusion = Fusion(4, modalities, reduction=2)
    randomise(fusion)
    features = [noise(1, 4, 4, 4, 3, seed=i) for i in range(modalities)]
    everything = torch.ones(1, modalities, dtype=torch.bool)
    alone = everything.clone()
    alone[:, 1:] = False
    filled = fusion([features[0]] * modalities, everything)
    torch.testing.assert_close(fusion(features, alone), filled)
    torch.testing.assert_close(fusion([features[0]] + [None] * (modalities - 1), alone), filled)
    if modalities == 3:
        two = torch.tensor([[True, False, True]])
        mean = (features[0] + features[2]) / 2
        expected = fusion([features[0], mean, features[2]], everything)
        torch.testing.assert_close(fusion([features[0], None, features[2]], two), expected)
        assert not torch.allclose(expected, filled)


def test_fusion_decides_row_by_row() -> None:
    fusion = Fusion(4, 2)
    randomise(fusion)
    a, b = noise(2, 4, 4, 4, 3), noise(2, 4, 4, 4, 3, seed=1)
    mixed = fusion([a, b], torch.tensor([[True, True], [True, False]]))
    both = fusion([a, b], torch.ones(2, 2, dtype=torch.bool))
    own = fusion([a, a], torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(mixed, torch.cat([both[:1], own[1:]]))
    assert not torch.allclose(both, own)
