"""The Universal Model's SwinUNETR against numbers of the original program."""

from __future__ import annotations

import re

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from crossvox.networks.universal.swinunetr import UniversalSwinUNETRBackbone
from fixtures.golden import Golden, golden, rule_input, rule_state
from fixtures.methods import crops, make_task

TOLERANCE = 4e-4
PATCH = (64, 32, 32)


def feature_size(fixture: Golden) -> int:
    """The feature size, from the sentence in the fixture's metadata."""
    found = re.search(r"feature_size\W+(\d+)", fixture.facts.get("config", ""))
    return int(found[1]) if found else 48


def by_rule(parts: nn.ModuleDict, salt: str, prefix: str = "backbone.") -> None:
    for part in parts.values():
        names = {n: t for n, t in part.state_dict().items() if n in part.published_names()}
        part.load_state_dict(rule_state(salt, names, prefix), strict=False)


def network(size: int) -> nn.ModuleDict:
    backbone = UniversalSwinUNETRBackbone(make_task(patch=PATCH), feature_size=size)
    return nn.ModuleDict({"encoder": backbone.encoder(), "decoder": backbone.decoder(2)}).eval()


@torch.no_grad()
def outputs(parts: nn.ModuleDict, image: Tensor) -> dict[str, Tensor]:
    """All stages by the fixtures' names."""
    stages: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, inputs, result: stages.update({name: result})

    for part in parts.values():
        for name, child in part.named_children():
            child.register_forward_hook(keep(name))
    parts["decoder"](parts["encoder"](image))
    hidden = stages.pop("swinViT")
    stages.update({f"hidden{i}": h for i, h in enumerate(hidden)})
    return {**stages, "dec4": stages["encoder10"], "out": stages["decoder1"]}


@pytest.mark.parametrize(
    "fixture",
    [pytest.param(f, id=f.path.stem) for f in golden("universal_swinunetr_backbone")]
    or [pytest.param(None, marks=pytest.mark.skip("no fixtures of the SwinUNETR here"))],
)
def test_the_original_programs_numbers_come_out(fixture):
    expected, parts = fixture.tensors(), network(feature_size(fixture))
    by_rule(parts, fixture.facts["salt"], fixture.facts.get("key_prefix", "backbone."))
    found = outputs(parts, rule_input(fixture.facts["input"], fixture.facts["salt"]))
    assert {"dec4", "out"} <= {name.partition(".")[0] for name in expected}
    for name, probe in expected.items():
        if name.startswith("chanstat."):
            rows = found[name.removeprefix("chanstat.")].transpose(0, 1).flatten(1)
            part = torch.stack([rows.mean(1), rows.std(1, correction=0)])
        else:
            stage, _, stride = name.partition(".stride")
            step = int(stride or 1)
            part = found[stage][..., ::step, ::step, ::step]
        torch.testing.assert_close(part, probe, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: n + m)


def test_it_is_monais_network_but_for_the_order_of_merging():
    """The same values there, once its merging is ours; without that, others."""
    parts, image = network(12), crops(1, 0, PATCH)
    by_rule(parts, "any")
    with torch.no_grad():
        ours = parts["decoder"](parts["encoder"](image))
        net = SwinUNETR(in_channels=1, out_channels=2, feature_size=12).eval()
        own = {n: t for part in parts.values() for n, t in part.state_dict().items()}
        own["out.conv.conv.weight"] = own.pop("head.weight")
        own["out.conv.conv.bias"] = own.pop("head.bias")
        net.load_state_dict(own)
        theirs = net(image)
        for n in range(1, 5):
            layer = getattr(net.swinViT, f"layers{n}")[0]
            layer.downsample = getattr(parts["encoder"].swinViT, f"layers{n}")[0].downsample
        merged = net(image)
    torch.testing.assert_close(merged, ours)
    assert float((theirs - ours).abs().max()) > 0.1


def test_it_has_the_published_names_and_size():
    with torch.device("meta"):
        backbone = UniversalSwinUNETRBackbone(make_task(patch=(96, 96, 96)), pretrained=True)
        parts = [backbone.encoder(), backbone.decoder(14)]
    assert sum(len(part.published_names()) for part in parts) == 157 - 8  # less the index buffers
    state = {name: t for part in parts for name, t in part.state_dict().items()}
    names = [name for part in parts for name in part.published_names()]
    assert sum(state[name].numel() for name in names) == 62_186_610
    assert "encoder1.layer.conv3.conv.weight" in names
    assert "swinViT.layers4.0.downsample.reduction.weight" in names


def test_features_halve_and_logits_come_at_the_images_size():
    parts = network(12)
    features = parts["encoder"](crops(2, 0, PATCH))
    assert [f.shape[1] for f in features] == parts["encoder"].channels
    assert [f.shape[2] for f in features] == [64, 32, 16, 8, 4, 2]
    assert parts["decoder"](features).shape == (2, 2, *PATCH)


@pytest.mark.parametrize(
    ("patch", "nearest"),
    [((90, 96, 96), (96, 96, 96)), ((32, 32, 32), (64, 64, 64)), ((16, 96, 40), (32, 96, 32))],
)
def test_crops_it_cannot_take_are_refused_with_the_nearest(patch, nearest):
    words = f"nearest is \\({', '.join(map(str, nearest))}\\)"
    with pytest.raises(ValueError, match=words):
        UniversalSwinUNETRBackbone(make_task(patch=patch))
    UniversalSwinUNETRBackbone(make_task(patch=nearest))
    with pytest.raises(ValueError, match=words):
        network(12)["encoder"](torch.zeros(1, 1, *patch))


@pytest.mark.parametrize(("size", "nearest"), [(0, 12), (-5, 12), (20, 24), (47, 48)])
def test_a_size_is_a_multiple_of_12(size, nearest):
    with pytest.raises(ValueError, match=f"feature_size {size} .* nearest is {nearest}"):
        UniversalSwinUNETRBackbone(make_task(patch=PATCH), feature_size=size)
