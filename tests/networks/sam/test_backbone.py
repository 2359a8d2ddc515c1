"""The options of the SAM-Med3D backbone."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from crossvox.batch import CropRule
from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.networks.sam.backbone import SamMed3DBackbone
from fixtures.methods import crops, gradients, make_batch, make_task

TINY = {"patch_size": 4, "embed": 12, "depth": 3, "heads": 2, "window": 3, "out_channels": 8,
        "adapter_reduction": 4, "width": 4}  # fmt: skip
CUBE = dataclasses.replace(make_task(), patch=(16, 16, 16))


def tiny(task=CUBE, **options) -> SamMed3DBackbone:
    torch.manual_seed(0)
    return SamMed3DBackbone(task, **TINY | options)


def image(*size: int):
    return torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("patch_size", "depth"), [(2, 1), (4, 3), (8, 2)])
def test_gives_logits_at_the_crops_size(patch_size, depth):
    backbone = tiny(patch_size=patch_size, depth=depth)
    encoder, decoder = backbone.encoder(), backbone.decoder(5)
    features = encoder(image(16, 16, 16))
    assert [f.shape[1] for f in features] == encoder.channels
    assert features[-1].shape[1:] == (8, *[16 // patch_size] * 3)
    assert decoder(features).shape == (2, 5, 16, 16, 16)


def test_crops_need_be_no_cube_with_the_textbooks_positions():
    backbone = tiny(make_task(), textbook_rel_pos=True)
    features = backbone.encoder()(crops(2, 0))
    assert backbone.decoder(3)(features).shape == (2, 3, 16, 16, 8)


def test_the_defaults_are_the_published_model_with_taps_after_every_third_block():
    backbone = SamMed3DBackbone(dataclasses.replace(CUBE, patch=(96, 96, 96)), pretrained=True)
    assert backbone.taps == (3, 6, 9, 12)
    assert backbone.config == type(backbone.config)()
    assert backbone.widths == [16, 32, 64, 128, 256]


def test_tables_are_made_for_the_crop_unless_weights_are_loaded():
    assert tiny().config.image == 16
    assert tiny(pretrained=True).config.image == 128
    assert tiny(pretrained=True, image_size=32).encoder().pos_embed.shape[1] == 8


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, "none"),
        ({"pretrained": True}, "paper"),
        ({"pretrained": True, "freeze": "none"}, "none"),
        ({"freeze": "paper"}, "paper"),
        ({"freeze": "all_but_adapter", "pretrained": True}, "all_but_adapter"),
    ],
)
def test_freezes_what_is_loaded_unless_told_otherwise(options, form):
    encoder = tiny(**options).encoder()
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
    encoder.freeze(form)
    assert trained == {n for n, p in encoder.named_parameters() if p.requires_grad}


def test_the_mask_decoder_gives_logits_at_the_crops_size_too():
    backbone = tiny(decoder="mask", out_channels=48, patch_size=8)
    encoder, decoder = backbone.encoder(), backbone.decoder(5)
    features = encoder(image(16, 16, 16))
    assert [f.shape[1] for f in features] == encoder.channels == [48]
    assert decoder(features).shape == (2, 5, 16, 16, 16)


@pytest.mark.parametrize(
    ("freeze", "options"),
    [
        ("paper", {}),
        ("all_but_adapter", {}),
        ("none", {}),
        ("none", {"decoder": "mask", "out_channels": 48}),
    ],
)
def test_trains_with_cmc_and_leaves_what_is_frozen(freeze, options):
    task = make_task(paired=True, registered=True)
    backbone = tiny(task, textbook_rel_pos=True, freeze=freeze, **options)
    method, batch = METHODS["cmc"](task, backbone), make_batch(task)
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=0.01, weight_decay=0.1)
    reached: set[str] = set()
    trained = {n for n, p in before.items() if method.get_parameter(n).requires_grad}
    fixed = set(before) - trained
    if freeze == "none":  # but for biases of the mask decoder that can have no effect
        assert all(name.endswith("k_proj.bias") for name in fixed)
    else:
        assert fixed
    for step in range(3):
        optimiser.zero_grad()
        method(batch, step / 3)["loss"].backward()
        named = method.named_parameters()
        reached |= {n for n, p in named if p.grad is not None and bool(p.grad.any())}
        optimiser.step()
    assert reached == trained
    moved = {n for n, p in method.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trained


def test_consistency_alone_reaches_the_adapters():
    task = make_task()
    method = METHODS["cmc"](task, tiny(task, textbook_rel_pos=True))
    with torch.no_grad():
        for name, p in method.named_parameters():
            if "adapter.up" in name:
                p.normal_(std=0.1)
    found = gradients(method, method(make_batch(task), 0.5)["csc"])
    assert all(hit for name, hit in found.items() if "adapter" in name)


@pytest.mark.parametrize(
    ("patch", "nearest"),
    [((16, 16, 8), "(12, 12, 12)"), ((15, 16, 16), "(16, 16, 16)"), ((4, 4, 4), "(8, 8, 8)")],
)
def test_refuses_a_crop_with_the_nearest_that_works(patch, nearest):
    with pytest.raises(ValueError, match=re.escape(f"nearest is {nearest}")):
        tiny(dataclasses.replace(CUBE, patch=patch))


def test_names_the_crops_that_it_takes():
    assert SamMed3DBackbone.crop() == CropRule(16, cubic=True)
    assert SamMed3DBackbone.crop(patch_size=8, textbook_rel_pos=True) == CropRule(8)
    assert SamMed3DBackbone.crop(global_every=0) == CropRule(16)
    assert SamMed3DBackbone.crop(window=0, global_every=0) == CropRule(16, cubic=True)
    assert SamMed3DBackbone.crop(depth=2) == CropRule(16)
    with pytest.raises(UsageError, match=r"backbone\.patch_size is 0"):
        SamMed3DBackbone.crop(patch_size=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 6}, "take 4 or 8"),
        ({"patch_size": 1}, "take 2 or 4"),
        ({"embed": 13}, "nearest is 12"),
        ({"decoder": "some"}, "choose one of pyramid, mask"),
        ({"decoder": "mask", "out_channels": 80}, "nearest is 96"),
        ({"decoder": "mask"}, "nearest is 48"),
        ({"freeze": "some"}, "auto, paper, all_but_adapter, none"),
        ({"image_size": 30}, "image_size 30"),
        ({"heads": 0}, "backbone.heads"),
        ({"depth": 0}, "backbone.depth"),
        ({"width": 0}, "backbone.width"),
        ({"window": -1}, "backbone.window"),
        ({"adapter_reduction": -1}, "backbone.adapter_reduction"),
        ({"mlp_ratio": 0.0}, "backbone.mlp_ratio"),
    ],
)
def test_refuses_nonsense(options, message):
    with pytest.raises((ValueError, UsageError), match=message):
        tiny(**options)
