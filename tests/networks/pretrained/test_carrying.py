"""Weights of one network for another: by name and shape, and class by class."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from crossvox.networks import BACKBONES
from crossvox.networks.pretrained.carrying import ClassMap, carry
from crossvox.networks.sam.mask_decoder import ClassMaskDecoder
from fixtures.methods import CUBE, TINY, make_task

BEFORE = ClassMap(("kidney", "liver", "aorta"), ("liver", "spleen", "kidney"))
"""Liver and kidney change places, the aorta is new, the spleen is gone."""


def decoders(backbone: str, classes: ClassMap = BEFORE) -> list[nn.Module]:
    """The decoder of the new task, of the earlier one, and of one class more."""
    task = replace(make_task(patch=CUBE), classes=tuple(classes.now))
    made = BACKBONES[backbone](task, **TINY[backbone])
    n = len(classes.now) + 1
    return [made.decoder(k) for k in (n, len(classes.before) + 1, n + 1)]


def test_equal_networks_are_filled_whole() -> None:
    same = ClassMap(("liver", "spleen"), ("liver", "spleen"))
    target, source, _ = decoders("unet", same)
    fates = carry(target, source, same, target)
    assert {fate.outcome for fate in fates.values()} == {"taken"}
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


def test_the_output_layer_is_carried_class_by_class() -> None:
    target, source, larger = decoders("unet")
    fresh = target.head.weight.detach().clone()
    fates = carry(target, source, BEFORE, larger)
    for kind in ("weight", "bias"):
        assert fates[f"head.{kind}"].outcome == "in part"
        assert fates[f"head.{kind}"].note == "background, kidney, liver"
        now, before = getattr(target.head, kind), getattr(source.head, kind)
        assert torch.equal(now[:3], before[[0, 3, 1]])
    assert torch.equal(target.head.weight[3], fresh[3])
    others = [fate.outcome for name, fate in fates.items() if not name.startswith("head")]
    assert set(others) == {"taken"}


def test_a_layer_that_counts_classes_twice_is_carried_along_both() -> None:
    target, source = nn.Conv3d(4, 4, 1), nn.Conv3d(4, 4, 1)
    carry(target, source, BEFORE, nn.Conv3d(5, 5, 1))
    now, before = target.weight[..., 0, 0, 0], source.weight[..., 0, 0, 0]
    assert torch.equal(now[:3, :3], before[[0, 3, 1]][:, [0, 3, 1]])
    assert not torch.equal(now[3], before[2])


def test_networks_of_single_classes_are_carried_by_the_class_and_not_by_their_number() -> None:
    target, source, larger = (ClassMaskDecoder(48, n, patch=8) for n in (4, 4, 5))
    fates = carry(target, source, BEFORE, larger)
    heads = [d.mask_decoder.output_hypernetworks_mlps for d in (target, source)]
    first = [next(mlp.parameters()) for mlp in heads[0]]
    before = [next(mlp.parameters()) for mlp in heads[1]]
    for now, then in ((0, 0), (1, 3), (2, 1)):
        assert torch.equal(first[now], before[then])
    assert not any(torch.equal(first[3], p) for p in before)
    new = [name for name, fate in fates.items() if fate.outcome == "new"]
    assert new and all(".output_hypernetworks_mlps.3." in name for name in new)


def test_other_shapes_are_left_and_told() -> None:
    target, source = nn.Conv3d(2, 8, 1), nn.Conv3d(2, 4, 1)
    fresh = target.weight.detach().clone()
    same = ClassMap(("a",), ("a",))
    fates = carry(target, source, same, target)
    assert torch.equal(target.weight, fresh)
    assert fates["weight"].outcome == "other shape"
    assert fates["weight"].note == "4×2×1×1×1 before, 8×2×1×1×1 now"
