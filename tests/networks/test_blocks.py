"""Layers against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from crossvox.networks.blocks import Convolution, InstanceNorm, Pointwise, conv
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


@pytest.mark.parametrize("rows", [1, 2])
def test_a_convolution_of_few_rows_is_torchs_in_value_and_gradient(rows: int) -> None:
    layer, x = conv(4, 3, (3, 3, 1), (2, 1, 1)), noise(rows, 4, 6, 5, 2).requires_grad_()
    expected = F.conv3d(x, layer.weight, layer.bias, (2, 1, 1), (1, 1, 0))
    torch.testing.assert_close(layer(x), expected)
    values = (x, layer.weight, layer.bias)
    weight = noise(*expected.shape)
    found = torch.autograd.grad((layer(x) * weight).sum(), values)
    torch.testing.assert_close(found, torch.autograd.grad((expected * weight).sum(), values))


def test_no_row_is_convolved_slowly() -> None:
    """torch has a slow kernel for a single row of few channels and voxels."""
    layer, x = Convolution(16, 16, 3, padding=1), noise(1, 16, 8, 8, 8).requires_grad_()
    assert "aten::slow_conv3d_forward" in operators(torch.nn.Conv3d.forward, layer, x)
    assert "aten::slow_conv3d_forward" not in operators(layer, x)


def test_a_network_is_exported_without_what_only_torch_needs() -> None:
    layer = Convolution(16, 16, 3, padding=1)
    exported = torch.export.export(layer, (noise(1, 16, 8, 8, 8),), strict=False)
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.aten.conv3d.default]


def operators(function, *inputs) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        function(*inputs).sum().backward()
    return {event.key for event in found.key_averages()}
