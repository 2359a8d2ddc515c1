"""Layers against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from crossvox.networks.blocks import InstanceNorm, Pointwise
from fixtures.tensors import noise, randomise


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
