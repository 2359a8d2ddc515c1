"""The adapter of a transformer block."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from crossvox.networks.sam.adapter import Adapter


def tokens():
    return torch.randn(2, 3, 4, 2, 8, generator=torch.Generator().manual_seed(0))


def test_starts_as_the_identity_and_learns_from_there():
    x, adapter = tokens(), Adapter(8, 4)
    assert torch.equal(adapter(x), x)
    adapter(x).pow(2).mean().backward()
    assert bool(adapter.up.weight.grad.any())


def test_is_its_formula():
    x, adapter = tokens(), Adapter(8, 4)
    with torch.no_grad():
        adapter.scale.fill_(0.5)
        for p in adapter.up.parameters():
            nn.init.normal_(p)
    down = adapter.down.weight.view(2, 8, 1, 1, 1)
    inner = F.gelu(F.conv3d(0.5 * x.movedim(-1, 1), down, adapter.down.bias))
    up = F.conv3d(inner, adapter.up.weight, adapter.up.bias, padding=1)
    torch.testing.assert_close(adapter(x), x + up.movedim(1, -1))


def test_a_bottleneck_has_a_channel_at_least():
    assert Adapter(8, 16).down.out_features == 1
    assert Adapter(768, 16).down.out_features == 48
