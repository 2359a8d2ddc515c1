"""SAM-Med3D's mask decoder, and the mask decoder with a token per class."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from crossvox.networks.pretrained.loading import fill, read_weights
from crossvox.networks.sam.backbone import SamMed3DBackbone
from crossvox.networks.sam.mask_decoder import ClassMaskDecoder, MaskDecoder
from fixtures.golden import Golden, golden, rule_input, rule_state
from fixtures.methods import make_task
from fixtures.sam_prompts import PromptEncoder

TOLERANCE = 1e-4
SMALL = {"patch_size": 8, "embed": 12, "depth": 1, "heads": 2, "out_channels": 48,
         "decoder": "mask"}  # fmt: skip


def inputs(fixture: Golden) -> dict[str, Tensor]:
    """Its metadata has `name=rule.volume(…); name=…`."""
    found = re.findall(r"(\w+)=(rule\.\w+\(.*?\)\))", fixture.facts["input"])
    return {name: rule_input(recipe, fixture.facts["salt"]) for name, recipe in found}


@torch.no_grad()
def outputs(fixture: Golden, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs with points and mask, and without a prompt, by the fixtures' names."""
    image = inputs(fixture)["embedding"]
    channels, (x, y, z), salt = image.shape[1], image.shape[2:], fixture.facts["salt"]
    prompts, decoder = PromptEncoder(channels), MaskDecoder(channels)
    prompts.load_state_dict(rule_state(salt, prompts.state_dict(), "prompt_encoder."))
    decoder.load_state_dict(rule_state(salt, decoder.state_dict(), "mask_decoder."))
    positions = prompts.positions((x, y, z))
    dense = prompts.mask(inputs(fixture)["masks"])
    sparse = prompts.points(given["points"], given["labels"], (16 * x, 16 * y, 16 * z))
    masks, scores = decoder(image, positions, dense, sparse)
    alone, alone_scores = decoder(image, positions, prompts.no_mask())
    single = masks[:, :1]
    return {
        "sparse": sparse,
        "dense": dense,
        "dense_pe": positions,
        "low_res.multimask_false": single,
        "low_res.multimask_true": masks[:, 1:],
        "low_res.noprompt": alone[:, :1],
        "iou.false": scores[:, :1],
        "iou.true": scores[:, 1:],
        "iou.noprompt": alone_scores[:, :1],
        "stat.low_res": torch.stack([single.mean(), single.std(), single.min(), single.max()]),
    }


def probe(result: Tensor, stride: str) -> Tensor:
    """The part that a fixture's name asks for: `stride4`, `ch_stride8` or all."""
    step = int(stride.rpartition("stride")[2] or 1)
    if stride.startswith("ch_"):
        return result[:, ::step]
    return result[..., ::step, ::step, ::step] if step > 1 else result


@pytest.mark.parametrize(
    "fixture",
    [pytest.param(f, id=f.path.stem) for f in golden("sam_med3d_prompt_encoder_mask_decoder")]
    or [pytest.param(None, marks=pytest.mark.skip("no fixtures of the mask decoder here"))],
)
def test_the_original_programs_numbers_come_out(fixture):
    expected = fixture.tensors()
    given = {name: expected.pop(name) for name in ("points", "labels")}
    found = outputs(fixture, given)
    assert {name.partition(".")[0] for name in expected} >= {"low_res", "iou", "sparse", "dense"}
    for name, value in expected.items():
        stage, stride = re.fullmatch(r"(.*?)(?:\.((?:ch_)?stride\d+))?", name).groups()
        part = probe(found[stage], stride or "")
        torch.testing.assert_close(part, value, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: n + m)


def test_they_have_the_published_size():
    with torch.device("meta"):
        states = [PromptEncoder(384).state_dict(), MaskDecoder(384).state_dict()]
    assert [len(state) for state in states] == [15, 120]
    assert [sum(t.numel() for t in state.values()) for state in states] == [9_052, 7_575_636]


def test_a_missing_point_says_nothing_of_where_it_is():
    prompts, image = PromptEncoder(48), (32, 32, 32)
    there, labels = torch.rand(1, 2, 3) * 32, torch.tensor([[1, -1]])
    moved = there + torch.tensor([0.0, 5.0]).view(1, 2, 1)
    found = prompts.points(there, labels, image)
    assert found.shape == (1, 3, 48)
    assert torch.equal(found, prompts.points(moved, labels, image))
    assert torch.equal(found[:, 1], found[:, 2])
    assert not torch.equal(found, prompts.points(there, 1 - labels.abs(), image))


def features(rows: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, 16, 24, 32), (48, 2, 3, 4)]
    return [torch.randn(rows, *size, generator=generator) for size in sizes]


def decoder(n_classes: int = 6) -> ClassMaskDecoder:
    torch.manual_seed(0)
    return ClassMaskDecoder(48, n_classes, patch=8)


@pytest.mark.parametrize("n_classes", [2, 6])
def test_a_logit_per_class_at_the_images_size(n_classes):
    assert decoder(n_classes)(features()).shape == (2, n_classes, 16, 24, 32)


def test_every_parameter_and_the_deepest_feature_have_a_say():
    net, given = decoder(), features()
    given[-1].requires_grad_()
    net(given).pow(3).mean().backward()
    assert bool(given[-1].grad.any())
    for name, p in net.named_parameters():
        assert p.requires_grad == (not name.endswith("k_proj.bias")), name
        assert not p.requires_grad or bool(p.grad.any()), name


def test_what_is_frozen_has_no_say():
    net, given = decoder(), features()
    before = net(given)
    with torch.no_grad():
        for p in net.parameters():
            if not p.requires_grad:
                p.add_(1)
    torch.testing.assert_close(net(given), before, rtol=1e-4, atol=1e-4)


def test_rows_do_not_see_each_other():
    net, given = decoder(), features()
    torch.testing.assert_close(net(given)[1:], net([f[1:] for f in given]))


def test_a_cell_knows_where_it_lies():
    """In a constant image the cells still differ by their position."""
    net = decoder()
    with torch.no_grad():
        logits = net([f.mul(0).add(1) for f in features()])
    assert float(logits.std(dim=(2, 3, 4)).min()) > 1e-4


def test_all_but_what_is_of_one_class_is_named_as_in_the_publication():
    whole = {"prompt_encoder." + n: t for n, t in PromptEncoder(48).state_dict().items()}
    whole |= {"mask_decoder." + n: t for n, t in MaskDecoder(48).state_dict().items()}
    net = decoder(3)
    state, names = net.state_dict(), net.published_names()
    assert all(state[name].shape == whole[name].shape for name in names)
    own = {name.split(".")[1] for name in set(state) - set(names)}
    assert own == {"mask_tokens", "output_hypernetworks_mlps"}


@pytest.mark.parametrize("prefix", ["image_encoder.", ""])
def test_a_published_file_fills_it_but_for_its_classes(tmp_path, prefix):
    backbone = SamMed3DBackbone(make_task(patch=(16, 16, 16)), **SMALL)
    encoder, net = backbone.encoder(), backbone.decoder(3)
    own = encoder.state_dict()
    state = rule_state("s", {prefix + n: own[n] for n in encoder.published_names()}, "")
    parts = nn.ModuleDict({"prompt_encoder": PromptEncoder(48), "mask_decoder": MaskDecoder(48)})
    state |= rule_state("s", parts.state_dict(), "")
    torch.save({"model_state_dict": state}, tmp_path / "a.pth")
    before = {n: t.clone() for n, t in net.state_dict().items()}
    report = fill([encoder, net], read_weights(tmp_path / "a.pth"))
    assert not (report.missing or report.misshaped or report.unexpected)
    shared = set(net.published_names())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name] if name in shared else before[name]), name
