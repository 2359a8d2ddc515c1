"""The fusion layer, with modalities present and absent."""

from __future__ import annotations

import pytest
import torch

from crossvox.methods.cmc.fusion import Fusion
from fixtures.tensors import noise, randomise

NAMES = ("t1", "t1c", "flair")


def levels(seed: int = 0, rows: int = 1) -> list[torch.Tensor]:
    return [noise(rows, 4, 8, 8, 6, seed=seed), noise(rows, 8, 4, 4, 3, seed=seed + 100)]


def awake_fusion(names: tuple[str, ...] = NAMES, **options: bool) -> Fusion:
    fusion = Fusion([4, 8], names, reduction=2, **options)
    randomise(fusion)
    return fusion


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


def test_fusion_starts_as_the_mean_of_what_a_row_has() -> None:
    given = {m: levels(seed) for seed, m in enumerate(NAMES)}
    fusion = Fusion([4, 8], NAMES)
    alone = fusion(given, {"t1": (True,)})
    assert [tuple(level.shape) for level in alone] == [(1, 4, 8, 8, 6), (1, 8, 4, 4, 3)]
    assert same(alone, given["t1"])
    pair = fusion(given, {"t1": (True,), "flair": (True,)})
    assert same(pair, [(a + b) / 2 for a, b in zip(given["t1"], given["flair"], strict=True)])


def test_without_skips_only_the_deepest_level_is_fused() -> None:
    z = awake_fusion(skips=False)({"t1": levels()}, {"t1": (True,)})
    assert [tuple(level.shape) for level in z] == [(1, 8, 4, 4, 3)]


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_fusion_fills_absent_places_with_the_mean_of_those_present(modalities: int) -> None:
    names = NAMES[:modalities]
    fusion = awake_fusion(names)
    given = {m: levels(seed) for seed, m in enumerate(names)}
    first = given[names[0]]
    everything = dict.fromkeys(names, (True,))
    filled = fusion(dict.fromkeys(names, first), everything)
    assert same(fusion(given, {names[0]: (True,)}), filled)
    assert same(fusion({names[0]: first}, {names[0]: (True,)}), filled)
    assert same(fusion(given, dict.fromkeys(names, (False,)) | {names[0]: (True,)}), filled)
    if modalities == 3:
        last = given[names[2]]
        mean = [(a + b) / 2 for a, b in zip(first, last, strict=True)]
        expected = fusion({names[0]: first, names[1]: mean, names[2]: last}, everything)
        assert same(fusion(given, {names[0]: (True,), names[2]: (True,)}), expected)
        assert not same(expected, filled)


def test_fusion_decides_row_by_row() -> None:
    fusion = awake_fusion(("ct", "mr"))
    ct, mr = levels(rows=2), levels(1, rows=2)
    mixed = fusion({"ct": ct, "mr": mr}, {"ct": (True, True), "mr": (True, False)})
    both = fusion({"ct": ct, "mr": mr}, {"ct": (True, True), "mr": (True, True)})
    own = fusion({"ct": ct}, {"ct": (True, True)})
    assert same(mixed, [torch.cat([a[:1], b[1:]]) for a, b in zip(both, own, strict=True)])
    assert not same(both, own)


def test_a_modality_in_all_places_is_convolved_once() -> None:
    """The same values in tensors of their own go the long way."""
    fusion = awake_fusion()
    one = [level.requires_grad_() for level in levels(rows=2)]
    apart = {m: [level.clone() for level in one] for m in NAMES}
    everywhere = (True, True)
    long = fusion(apart, dict.fromkeys(NAMES, everywhere))
    expected = torch.autograd.grad(
        sum(z.square().sum() for z in long), [*fusion.parameters(), *one]
    )
    seen = []
    for layer in fusion.layers:
        layer.mix[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    short = fusion({"t1": one}, {"t1": everywhere})
    assert seen == [4, 8] and same(short, long)
    found = torch.autograd.grad(sum(z.square().sum() for z in short), [*fusion.parameters(), *one])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
