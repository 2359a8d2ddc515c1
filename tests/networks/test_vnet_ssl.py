"""The V-Net of the semi-supervised literature."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from crossvox.errors import UsageError
from crossvox.losses.supervised import supervised_loss
from crossvox.networks.vnet_ssl import VNetSSLBackbone
from fixtures.methods import crops, labels, make_task

PATCH = (32, 16, 16)


def task(patch=PATCH):
    return make_task(patch=patch)


def network(width=2, **options) -> nn.Sequential:
    torch.manual_seed(0)
    backbone = VNetSSLBackbone(task(), width=width, **options)
    return nn.Sequential(backbone.encoder(), backbone.decoder(3))


@pytest.mark.parametrize(("width", "published"), [(16, 9_448_866), (32, 37_777_730)])
def test_it_has_the_published_size_less_the_biases_that_the_norm_cancels(width, published):
    """A bias per channel: 2 800 at width 16, where the published network has 9.449 million."""
    with torch.device("meta"):
        backbone = VNetSSLBackbone(task(), width=width, norm="batch")
        parts = nn.ModuleList([backbone.encoder(), backbone.decoder(2)])
    assert parts[0].channels == [width * 2**i for i in range(5)]
    found = sum(p.numel() for p in parts.parameters())
    biases = sum(m.num_features for m in parts.modules() if isinstance(m, nn.BatchNorm3d))
    assert found + biases == published


def test_skips_are_added():
    decoder = network()[1]
    features = [torch.rand(1, 2 * 2**i, *(n >> i for n in PATCH)) for i in range(5)]
    seen = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda m, inputs, out: seen.append((inputs[0], out)))
    decoder(features)
    below = [features[-1], *(out for _, out in seen)]
    for (given, _), up, x, skip in zip(seen, decoder.ups, below, features[-2::-1], strict=False):
        torch.testing.assert_close(given, up(x) + skip)
    assert len(seen) == 4


def test_the_norm_is_by_crop_or_by_batch_with_running_statistics():
    x = crops(2, 0, PATCH)
    for norm, counts in (("batch", True), ("instance", False)):
        net = network(norm=norm)
        together, alone = net[0](x)[1][:1], net[0](x[:1])[1]
        assert torch.allclose(together, alone, atol=1e-5) is not counts
        net.eval()
        torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-3, atol=1e-4)


def test_dropout_is_off_unless_asked_for_and_in_evaluation():
    x = crops(1, 0, PATCH)
    plain, dropping = network().double(), network(dropout=0.5).double()
    assert torch.equal(plain(x.double()), plain(x.double()))
    deepest = dropping[0](x.double())[-1]
    torch.manual_seed(1)
    assert not torch.equal(dropping(x.double()), dropping(x.double()))
    gone = (deepest == 0).all((2, 3, 4)).sum()
    assert 0 < gone < deepest.shape[1]
    assert torch.equal(dropping.eval()(x.double()), plain(x.double()))


def test_it_overfits_a_labelled_crop():
    label = labels(1, 3, 0, PATCH)
    image = crops(1, 0, PATCH) + 2 * label.unsqueeze(1)
    net = network(width=4)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-2)
    for _ in range(100):
        optimiser.zero_grad()
        supervised_loss(net(image), label, balance=0.5).backward()
        optimiser.step()
    found = net(image).argmax(1)
    for c in (1, 2):
        a, b = found == c, label == c
        assert 2 * float((a & b).sum()) / float(a.sum() + b.sum()) > 0.95


@pytest.mark.parametrize(
    ("patch", "nearest"), [((40, 32, 8), "(32, 32, 16)"), ((16, 16, 16), "(32, 32, 32)")]
)
def test_crops_it_cannot_take_are_refused_with_the_nearest(patch, nearest):
    message = f"vnet_ssl cannot.*{re.escape(nearest)}$"
    with pytest.raises(ValueError, match=message):
        VNetSSLBackbone(task(patch))
    encoder = VNetSSLBackbone(task(), width=1).encoder()
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(1, 1, *patch))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="instance, batch"):
        VNetSSLBackbone(task(), norm="layer")
    with pytest.raises(UsageError, match=r"backbone\.width is 0"):
        VNetSSLBackbone(task(), width=0)
    with pytest.raises(UsageError, match=r"backbone\.dropout is 1\.5"):
        VNetSSLBackbone(task(), dropout=1.5)


def test_channels_of_the_last_step_are_left_out_in_training_alone():
    decoder = network(width=8, dropout=0.5)[1]
    seen = []
    decoder.head.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    features = [torch.rand(1, 8 * 2**i, *(n >> i for n in PATCH)) for i in range(5)]
    decoder(features)
    assert {bool(channel.any()) for channel in seen[0][0]} == {True, False}
    decoder.eval()
    decoder(features)
    assert all(bool(channel.any()) for channel in seen[1][0])
