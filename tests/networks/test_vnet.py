"""The original V-Net."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.errors import UsageError
from crossvox.losses.supervised import supervised_loss
from crossvox.networks.vnet import VNetBackbone
from fixtures.methods import crops, labels, make_task

PATCH = (32, 16, 16)


def task(patch=PATCH):
    return make_task(patch=patch)


def network(**options) -> nn.Sequential:
    torch.manual_seed(0)
    backbone = VNetBackbone(task(), **options)
    return nn.Sequential(backbone.encoder(), backbone.decoder(3))


@pytest.mark.parametrize(("counts", "millions"), [("prototxt", 61.98), ("figure", 65.18)])
def test_it_has_the_original_size(counts, millions):
    with torch.device("meta"):
        backbone = VNetBackbone(task(), counts=counts)
        parts = (backbone.encoder(), backbone.decoder(2))
    assert parts[0].channels == [16, 32, 64, 128, 256]
    found = sum(p.numel() for part in parts for p in part.parameters())
    assert round(found / 1e6, 2) == millions


def test_a_block_adds_its_input_before_the_last_activation():
    """All kernels pass the centre on: 1 conv PReLU(x + x), 2 convs PReLU(x + PReLU(x))."""
    blocks = VNetBackbone(task(), width=1).encoder().blocks
    x = torch.tensor([4.0, -4.0]).view(1, 1, 2, 1, 1)
    with torch.no_grad():
        for block, inputs in ((blocks[0], x), (blocks[2], x.expand(1, 4, 2, 1, 1))):
            for p in block.parameters():
                p.zero_() if p.ndim == 5 else None
            for layer in block.convs:
                if isinstance(layer, nn.Conv3d):
                    layer.weight[range(len(layer.weight)), range(len(layer.weight)), 2, 2, 2] = 1
            found = block(inputs)
            # PReLU's slope is ¼. One: 8 and ¼ · −8 = −2; two: 8 and ¼ (−4 − 1) = −1.25.
            below = -2.0 if block is blocks[0] else -1.25
            expected = torch.tensor([8.0, below]).view(1, 1, 2, 1, 1).expand(found.shape)
            torch.testing.assert_close(found, expected)


def test_a_single_image_is_added_to_every_channel():
    block = VNetBackbone(task(), width=3).encoder().blocks[0]
    with torch.no_grad():
        for p in block.convs.parameters():
            p.zero_()
        x = crops(2, 0, PATCH)
        expected = F.prelu(x, torch.tensor([0.25])).expand(-1, 3, -1, -1, -1)
        torch.testing.assert_close(block(x), expected)


def test_a_norm_is_an_option():
    kinds = {type(m).__name__ for m in network(width=2).modules()}
    assert "InstanceNorm" not in kinds
    x = crops(1, 0, PATCH)
    scaled: list[Tensor] = []
    for net in (network(width=2), network(width=2, norm="instance")):
        deep = net[0].blocks[2].convs
        with torch.no_grad():
            y = x.expand(-1, 8, -1, -1, -1)
            scaled.append(deep[:2](10 * y).std() / deep[:2](y).std())
    assert float(scaled[0]) > 5 and float(scaled[1]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_it_overfits_a_labelled_crop(norm):
    label = labels(1, 3, 0, PATCH)
    image = crops(1, 0, PATCH) + 2 * label.unsqueeze(1)
    net = network(width=2, norm=norm)
    optimiser = torch.optim.AdamW(net.parameters(), lr=6e-3)
    for _ in range(100):
        optimiser.zero_grad()
        loss = supervised_loss(net(image), label, balance=0.5)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    found = net(image).argmax(1)
    for c in (1, 2):
        a, b = found == c, label == c
        assert 2 * float((a & b).sum()) / float(a.sum() + b.sum()) > 0.95


@pytest.mark.parametrize(
    ("patch", "nearest"), [((40, 32, 8), "(32, 32, 16)"), ((16, 16, 16), "(32, 32, 32)")]
)
def test_crops_it_cannot_take_are_refused_with_the_nearest(patch, nearest):
    message = f"vnet cannot.*{re.escape(nearest)}$"
    with pytest.raises(ValueError, match=message):
        VNetBackbone(task(patch))
    encoder = VNetBackbone(task(), width=1).encoder()
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(1, 1, *patch))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="prototxt, figure"):
        VNetBackbone(task(), counts="monai")
    with pytest.raises(ValueError, match="none, instance"):
        VNetBackbone(task(), norm="batch")
    with pytest.raises(UsageError, match=r"backbone\.width is 0"):
        VNetBackbone(task(), width=0)
