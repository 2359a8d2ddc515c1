"""The layers that all networks are built from."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Triple

SLOPE = 0.01

SMALL_ROW = 20480
"""Product of channels, X and Y up to which torch leaves a single row to a slow convolution."""


class InstanceNorm(nn.Module):
    """Instance normalisation with a learnt scale and shift: (B, C, X, Y, Z) → the same shape.

    Raises:
        ValueError: the input is a single voxel, whose deviation from its own mean is always 0.
    """

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each row over space."""
        if x[0, 0].numel() == 1:
            raise ValueError(
                "instance normalisation of a single voxel is always 0; "
                "use fewer levels or a larger patch"
            )
        if x.device.type != "cpu":
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        # CPU convolutions run up to twice as fast in the channels-last layout. Some of them leave
        # it for a single small row, and F.instance_norm always does.
        x = x.contiguous(memory_format=torch.channels_last_3d)
        return norm_rows(x, self.weight, self.bias, self.eps)


class Convolution(nn.Conv3d):
    """A convolution that is fast for a single small row on a CPU, too."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) → (B, outputs, X, Y, Z), smaller by the stride."""
        small = len(input) == 1 and input.shape[1:4].numel() <= SMALL_ROW
        # Tensors without values stand for those of a card, whose memory is estimated, or of a
        # network that is exported.
        real = type(input) is Tensor and input.device.type == "cpu"
        if not (small and real):
            return super().forward(input)
        # torch convolves such a row without oneDNN, which is quicker even with two rows of it.
        return super().forward(torch.cat([input, input]))[:1]


class Pointwise(nn.Conv3d):
    """A 1×1×1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) → (B, outputs, X, Y, Z)."""
        if input.device.type != "cpu":
            return super().forward(input)
        # The CPU's convolution of this size goes through the channels-first layout and back.
        mixed = F.linear(input.movedim(1, -1), self.weight.flatten(1), self.bias)
        return mixed.movedim(-1, 1)


def norm_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the instance norm of x, in the layout of x, as the batch norm of every single row."""
    rows = [
        F.batch_norm(row, None, None, weight, bias, training=True, eps=eps) for row in x.split(1)
    ]
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def zero_pointwise(inputs: int, outputs: int) -> Pointwise:
    """Build a 1×1×1 convolution with all weights zero, so that its branch starts as nothing."""
    layer = Pointwise(inputs, outputs)
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def conv(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """Build a convolution that keeps the size (up to its stride), for odd kernels."""
    if kernel == stride == (1, 1, 1):
        return Pointwise(inputs, outputs)
    padding = tuple(k // 2 for k in kernel)
    return Convolution(inputs, outputs, kernel, stride, padding)  # type: ignore[arg-type]


def conv_norm_act(
    inputs: int, outputs: int, kernel: Triple = (3, 3, 3), stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    """Build convolution → instance norm → leaky ReLU."""
    convolution = conv(inputs, outputs, kernel, stride)
    # The norm subtracts any bias again, so one here would never get a gradient.
    convolution.register_parameter("bias", None)
    return nn.Sequential(convolution, InstanceNorm(outputs), nn.LeakyReLU(SLOPE, inplace=True))


def climb(up: nn.Module, level: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """Go one level up a decoder: `level` over the upsampled x and the skip."""
    return level(torch.cat([up(x), skip], dim=1))


def fast_layout(x: Tensor) -> Tensor:
    """Return an image (B, 1, X, Y, Z) in the layout that is fastest for convolutions on its device.

    On a CPU that is channels-last.
    """
    if x.device.type != "cpu":
        return x
    # With a single channel both layouts hold the same numbers in the same order, and
    # `contiguous(memory_format=…)` would return x unchanged; only these strides say channels-last.
    return x[:, 0].contiguous().unsqueeze(-1).movedim(-1, 1)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast on x's device; the device "meta" has no autocast."""
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
