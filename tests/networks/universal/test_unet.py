"""The Universal Model's U-Net against numbers of the original program."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.errors import UsageError
from crossvox.networks.universal.unet import UniversalUNetBackbone
from fixtures.golden import Golden, golden, rule_input, rule_state
from fixtures.methods import make_task
from fixtures.tensors import noise

FIXTURES = golden("universal_unet_backbone")
TOLERANCE = 3e-4
fixtures = pytest.mark.parametrize(
    "fixture",
    [pytest.param(f, id=f.path.stem) for f in FIXTURES]
    or [pytest.param(None, marks=pytest.mark.skip("no fixtures of the U-Net here"))],
)


def task(patch=(16, 16, 8)):
    return dataclasses.replace(make_task(), patch=patch)


def loaded(fixture: Golden, norm: str) -> nn.ModuleDict:
    """Down and up path with the fixture's weights; the last feature is taken before the head."""
    backbone = UniversalUNetBackbone(task(), norm=norm)  # type: ignore[arg-type]
    parts = nn.ModuleDict({"down": backbone.encoder(), "up": backbone.decoder(2)})
    prefix = fixture.facts.get("key_prefix", "backbone.")
    for part in parts.values():
        names = {n: t for n, t in part.state_dict().items() if n in part.published_names()}
        part.load_state_dict(rule_state(fixture.facts["salt"], names, prefix), strict=False)
    parts["up"].head = nn.Identity()
    return parts


@torch.no_grad()
def outputs(fixture: Golden, net: nn.ModuleDict) -> dict[str, Tensor]:
    """All stages by the fixtures' names."""
    stages: dict[str, Tensor] = {}
    for name in ("256", "128", "64"):
        stage = getattr(net["up"], f"up_tr{name}")
        stage.register_forward_hook(lambda m, a, out, n=name: stages.update({f"out_up_{n}": out}))
    features = net["down"](rule_input(fixture.facts["input"], fixture.facts["salt"]))
    net["up"](features)
    skips = {f"skip_out{64 * 2**i}": f for i, f in enumerate(features)}
    return {**stages, **skips, "out512": features[-1]}


def compare(expected: dict[str, Tensor], found: dict[str, Tensor], prefix: str = "") -> int:
    """Check the probes named `prefix` + stage, also with `.strideN`; return their number."""
    number = 0
    for key, probe in expected.items():
        match = re.fullmatch(rf"{re.escape(prefix)}(\w+?)(?:\.stride(\d+))?", key)
        if not match or match[1] not in found:
            continue
        step, stage = int(match[2] or 1), found[match[1]]
        part = stage[:, :: stage.shape[1] // probe.shape[1], ::step, ::step, ::step]
        torch.testing.assert_close(part, probe, rtol=0, atol=TOLERANCE)
        number += 1
    return number


@fixtures
def test_the_original_programs_numbers_come_out(fixture):
    """The original uses the batch's statistics in evaluation too, as "batch" does in training."""
    expected, net = fixture.tensors(), loaded(fixture, "batch").train()
    found = outputs(fixture, net)
    assert compare(expected, found) >= 2
    for name, stage in found.items():
        if f"chanstat.{name}" in expected:
            rows = stage.transpose(0, 1).flatten(1)
            moments = torch.stack([rows.mean(1), rows.std(1, correction=0)])
            torch.testing.assert_close(
                moments, expected[f"chanstat.{name}"], rtol=0, atol=TOLERANCE
            )
    state = {**net["down"].state_dict(), **net["up"].state_dict()}
    moved = [name for name in expected if name.startswith("after.") and "running" in name]
    assert moved
    for name in moved:
        torch.testing.assert_close(
            state[name.removeprefix("after.")], expected[name], rtol=0, atol=TOLERANCE
        )
    counts = {int(t) for n, t in state.items() if n.endswith("num_batches_tracked")}
    assert counts == {int(expected["after.num_batches_tracked"])}


@fixtures
def test_with_running_statistics_too(fixture):
    expected = fixture.tensors()
    if not any(name.startswith("runstats.") for name in expected):
        pytest.skip("this set has no outputs by running statistics")
    found = outputs(fixture, loaded(fixture, "running").eval())
    assert compare(expected, found, "runstats.") >= 2


def test_it_has_the_published_names_and_size():
    with torch.device("meta"):
        backbone = UniversalUNetBackbone(task())
        parts = [backbone.encoder(), backbone.decoder(14)]
    names = [name for part in parts for name in part.published_names()]
    assert [len(part.published_names()) for part in parts] == [56, 48]
    weights = [t for part in parts for n, t in part.named_parameters() if n in names]
    assert sum(t.numel() for t in weights) == 19_073_600
    assert "down_tr64.ops.0.bn1.num_batches_tracked" in names and "up_tr64.up_conv.bias" in names


@pytest.mark.parametrize("norm", ["batch", "instance", "running"])
def test_in_evaluation_rows_are_alone_and_nothing_moves(norm):
    torch.manual_seed(0)
    backbone = UniversalUNetBackbone(task(), width=4, norm=norm)
    net = nn.Sequential(backbone.encoder(), backbone.decoder(3))
    net(noise(2, 1, 16, 16, 8))  # so that running statistics are some
    net.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = noise(3, 1, 16, 16, 8, seed=1)
    with torch.no_grad():
        together, alone = net(x), net(x[1:2])
        other = net(torch.cat([5 + x[:1], x[1:2]]))
    torch.testing.assert_close(together[1:2], alone)
    torch.testing.assert_close(other[1:2], alone)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_in_training_the_batch_counts_as_published_and_by_instance_it_does_not():
    x = noise(2, 1, 16, 16, 8)
    for norm, counts in (("batch", True), ("running", True), ("instance", False)):
        torch.manual_seed(0)
        encoder = UniversalUNetBackbone(task(), width=2, norm=norm).encoder()
        together, alone = encoder(x)[-1][:1], encoder(x[:1])[-1]
        assert torch.allclose(together, alone, atol=1e-5) is not counts


def test_instance_norm_is_what_its_name_says():
    torch.manual_seed(0)
    unit = UniversalUNetBackbone(task(), width=2, norm="instance").encoder().down_tr64.ops[0]
    x = noise(2, 1, 16, 16, 8)
    expected = F.instance_norm(unit.conv1(x), weight=unit.bn1.weight, bias=unit.bn1.bias)
    torch.testing.assert_close(unit(x), F.relu(expected))


@pytest.mark.parametrize(
    ("patch", "nearest"),
    [
        ((90, 96, 96), (88, 96, 96)),
        ((96, 96, 3), (96, 96, 8)),
        ((8, 8, 8), (16, 16, 16)),
        ((7, 8, 9), (8, 8, 16)),
    ],
)
def test_crops_it_cannot_take_are_refused_with_the_nearest(patch, nearest):
    with pytest.raises(ValueError, match=f"nearest is \\({', '.join(map(str, nearest))}\\)"):
        UniversalUNetBackbone(task(patch))
    UniversalUNetBackbone(task(nearest))
    with pytest.raises(ValueError, match="nearest is"):
        UniversalUNetBackbone(task(), width=1).encoder()(torch.zeros(1, 1, *patch))


def test_a_norm_depends_on_whether_weights_are_loaded():
    assert UniversalUNetBackbone(task(), pretrained=True).norm == "batch"
    assert UniversalUNetBackbone(task()).norm == "instance"
    assert UniversalUNetBackbone(task(), pretrained=True, norm="running").norm == "running"
    with pytest.raises(ValueError, match="auto, batch, instance, running"):
        UniversalUNetBackbone(task(), norm="layer")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="width is 0"):
        UniversalUNetBackbone(task(), width=0)
