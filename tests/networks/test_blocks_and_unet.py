from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Task, Triple
from crossvox.methods.cmc.fusion import Fusion
from crossvox.methods.cmc.mia import MIA, make_mia
from crossvox.networks import BACKBONES
from crossvox.networks.blocks import InstanceNorm, Pointwise
from crossvox.networks.unet import UNetBackbone
from fixtures.methods import CROPS, CUBE, PATCH, TINY, crops, make_task


def task_with(strides: tuple[Triple, ...], patch: Triple = PATCH) -> Task:
    return dataclasses.replace(
        make_task(), strides=strides, kernels=((3, 3, 3),) * len(strides), patch=patch
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module: nn.Module) -> None:
    """Give zero-initialised layers something to do."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))


def test_instance_norm_is_what_its_name_says() -> None:
    x, norm = noise(3, 4, 5, 6, 2), InstanceNorm(4)
    randomise(norm)
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(norm(x), expected)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(norm(last), expected)
    with pytest.raises(ValueError, match="single voxel"):
        norm(noise(2, 4, 1, 1, 1))


def test_pointwise_is_a_convolution_of_size_one() -> None:
    x, layer = noise(2, 4, 3, 5, 2), Pointwise(4, 3)
    expected = F.conv3d(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(layer(last), expected)


@pytest.mark.parametrize("rows", [1, 2])
def test_unet_keeps_the_layout_that_is_fast_on_a_cpu(rows: int) -> None:
    backbone = UNetBackbone(make_task(), width=4)
    features = backbone.encoder()(crops(rows, 0))
    assert all(f.is_contiguous(memory_format=torch.channels_last_3d) for f in features)
    assert backbone.decoder(3)(features).is_contiguous()


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        (((1, 1, 1), (2, 2, 1), (2, 2, 2)), [(16, 16, 8), (8, 8, 8), (4, 4, 4)]),
        (((2, 2, 1), (2, 2, 2)), [(8, 8, 8), (4, 4, 4)]),
        (((1, 1, 1),), [(16, 16, 8)]),
    ],
)
def test_unet_shapes(strides: tuple[Triple, ...], sizes: list[Triple]) -> None:
    backbone = UNetBackbone(task_with(strides), width=3, convs=(1, 2), max_width=6)
    encoder, decoder = backbone.encoder(), backbone.decoder(5)
    features = encoder(crops(2, 0))
    assert [tuple(f.shape[2:]) for f in features] == sizes
    assert [f.shape[1] for f in features] == encoder.channels == [3, 6, 6][: len(sizes)]
    assert decoder(features).shape == (2, 5, *PATCH)


def test_unet_takes_any_multiple_of_its_strides_and_says_so() -> None:
    backbone = UNetBackbone(make_task(), width=2)
    encoder, decoder = backbone.encoder(), backbone.decoder(2)
    assert decoder(encoder(noise(1, 1, 8, 24, 4))).shape == (1, 2, 8, 24, 4)
    with pytest.raises(ValueError, match=r"no multiple .*\(4, 4, 2\)"):
        encoder(noise(1, 1, 18, 16, 8))
    with pytest.raises(ValueError, match="no multiple"):
        UNetBackbone(task_with(((1, 1, 1), (2, 2, 2)), patch=(15, 16, 8)))


def test_unet_refuses_a_single_voxel_at_the_bottom() -> None:
    with pytest.raises(ValueError, match="single one"):
        UNetBackbone(task_with(((1, 1, 1), (2, 2, 2)), patch=(2, 2, 2)))
    with pytest.raises(ValueError, match="single one"):
        UNetBackbone(make_task()).encoder()(noise(1, 1, 4, 4, 2))


def test_unet_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="all must be > 0"):
        UNetBackbone(make_task(), width=0)
    with pytest.raises(ValueError, match="3 strides but 2 kernels"):
        UNetBackbone(dataclasses.replace(make_task(), kernels=((3, 3, 3),) * 2))


def test_unet_kernels_of_one_do_not_look_across_slices() -> None:
    flat = dataclasses.replace(
        make_task(), strides=((1, 1, 1), (2, 2, 1)), kernels=((3, 3, 1), (3, 3, 1))
    )
    encoder = UNetBackbone(flat, width=4).encoder()
    first = encoder.levels[0][0][0]
    assert first.kernel_size == (3, 3, 1)
    x = crops(1, 0)
    changed = x.clone()
    changed[..., 0] += 1
    before, after = (first(v)[..., 1:] for v in (x, changed))
    assert torch.equal(before, after)


def test_unet_rows_do_not_see_each_other() -> None:
    backbone = UNetBackbone(make_task(), width=4)
    encoder, decoder = backbone.encoder(), backbone.decoder(3)
    x = crops(3, 0)
    torch.testing.assert_close(decoder(encoder(x))[1:2], decoder(encoder(x[1:2])))


def test_every_registered_backbone_keeps_the_contract() -> None:
    for name, kind in BACKBONES.items():
        patch = CROPS.get(name, CUBE)
        backbone = kind(make_task(patch=patch), **TINY[name])
        encoder, decoder = backbone.encoder(), backbone.decoder(3)
        features = encoder(crops(2, 0, patch))
        assert [f.shape[1] for f in features] == encoder.channels
        assert decoder(features).shape == (2, 3, *patch)
        again = [p.data_ptr() for p in backbone.encoder().parameters()]
        assert not set(again) & {p.data_ptr() for p in encoder.parameters()}


@pytest.mark.parametrize("form", ["gate", "danet", "none"])
def test_awareness_starts_as_the_identity(form: str) -> None:
    x = noise(2, 6, 4, 4, 3)
    module = make_mia(form, 6)  # type: ignore[arg-type]
    assert torch.equal(module(x), x)


def test_awareness_is_the_gate_of_its_formula() -> None:
    x, module = noise(2, 4, 4, 4, 3), MIA(4)
    randomise(module)
    h = module.project(x)
    mixed = F.conv3d(torch.cat([x, h], 1), module.mix[0].weight, padding=1)
    mixed = F.instance_norm(mixed, weight=module.mix[1].weight, bias=module.mix[1].bias)
    attention = module.gate(F.leaky_relu(mixed, 0.01)).sigmoid()
    torch.testing.assert_close(module(x), x + module.close(attention * h))
    assert not torch.allclose(module(x), x)


def test_channel_attention_by_hand() -> None:
    module = make_mia("danet", 2)
    with torch.no_grad():
        module.gamma.fill_(2.0)
    x = torch.tensor([1.0, 0, 0, 1]).view(1, 2, 2, 1, 1)  # E = identity, max E − E = 1 − identity
    same = 1 / (1 + torch.e)
    expected = x + 2 * (same * x + (1 - same) * x.flip(1))
    torch.testing.assert_close(module(x), expected)


def test_unknown_awareness_is_refused() -> None:
    with pytest.raises(ValueError, match="gate, danet, none"):
        make_mia("se", 4)  # type: ignore[arg-type]


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
