"""The pyramid decoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.networks.sam.pyramid_decoder import PyramidDecoder


def features(rows: int = 2, grid: tuple[int, int, int] = (2, 3, 1), halvings: int = 2):
    """Image, as many taps of 6 channels as there are halvings, and a deepest feature of 5."""
    generator = torch.Generator().manual_seed(0)

    def noise(channels: int, *size: int) -> Tensor:
        return torch.randn(rows, channels, *size, generator=generator)

    taps = [noise(6, *grid) for _ in range(halvings)]
    return [noise(1, *(n * 2**halvings for n in grid)), *taps, noise(5, *grid)]


def decoder(halvings: int = 2) -> PyramidDecoder:
    torch.manual_seed(0)
    widths = [4 * 2**i for i in range(halvings + 1)]
    return PyramidDecoder([1, *[6] * halvings, 5], widths, 3)


@pytest.mark.parametrize("halvings", [1, 2, 4])
def test_logits_at_the_images_size(halvings):
    given = features(halvings=halvings)
    logits = decoder(halvings)(given)
    assert logits.shape == (2, 3, *given[0].shape[2:])
    assert logits.is_contiguous()


def test_taps_come_in_at_their_own_resolution():
    net, sizes = decoder(3), []
    for lift in net.lifts:
        lift.register_forward_hook(lambda m, args, out: sizes.append(tuple(out.shape[1:])))
    net(features(halvings=3))
    assert sizes == [(8, 8, 12, 4), (16, 4, 6, 2), (32, 2, 3, 1)]


def test_every_parameter_and_feature_has_a_say():
    net, given = decoder(), [f.requires_grad_() for f in features()]
    net(given).pow(3).mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and bool(p.grad.any()), name
    assert all(bool(f.grad.any()) for f in given)


def test_rows_do_not_see_each_other():
    net, given = decoder(), features()
    torch.testing.assert_close(net(given)[1:], net([f[1:] for f in given]))
