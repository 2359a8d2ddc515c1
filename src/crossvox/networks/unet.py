"""A plain U-Net without residuals, whose strides and kernels may differ per axis and level."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Task, Triple
from crossvox.networks.backbone import check_size, total_stride
from crossvox.networks.blocks import Pointwise, climb, conv_norm_act, fast_layout
from crossvox.networks.checkpointing import run


class UNetBackbone:
    """A U-Net with the task's strides and kernels.

    Level i has min(width · 2^i, max_width) channels. Each convolution is followed by instance norm
    and leaky ReLU. Strided convolutions lead down; transposed ones lead up, whose result is
    concatenated with the skip.

    Args:
        task: gives patch, strides and kernels.
        width: channels of the top level; multiples of 8 run fastest.
        convs: convolutions per level, in encoder and decoder alike; further levels take the last
            number.
        max_width: largest number of channels of a level.
        checkpoint: keep only the levels' inputs for the backward pass and compute the levels again
            there: less memory, a third more time.

    Raises:
        ValueError: an option is out of range, or the patch does not fit the strides.

    Examples:
        >>> backbone = UNetBackbone(task, width=8)
        >>> encoder, decoder = backbone.encoder(), backbone.decoder(task.n_classes)
        >>> decoder(encoder(torch.randn(1, 1, 32, 32, 16))).shape
        torch.Size([1, 3, 32, 32, 16])
    """

    def __init__(
        self,
        task: Task,
        *,
        width: int = 16,
        convs: tuple[int, ...] = (1, 2, 2, 2, 2, 2),
        max_width: int = 256,
        checkpoint: bool = False,
    ) -> None:
        if len(task.strides) != len(task.kernels):
            raise ValueError(
                f"{len(task.strides)} strides but {len(task.kernels)} kernels; "
                "give one of each per level"
            )
        if width < 1 or max_width < 1 or not convs or min(convs) < 1:
            raise ValueError(
                f"width {width}, convs {convs}, max_width {max_width}: all must be > 0"
            )
        self.strides = task.strides
        self.kernels = task.kernels
        levels = range(len(task.strides))
        self.channels = [min(width * 2**i, max_width) for i in levels]
        self.convs = [convs[min(i, len(convs) - 1)] for i in levels]
        self.checkpoint = checkpoint
        check_size(task.patch, total_stride(task.strides))

    def encoder(self) -> UNetEncoder:
        """Return a new encoder with random weights."""
        sizes = self.channels, self.strides, self.kernels, self.convs
        return UNetEncoder(*sizes, checkpoint=self.checkpoint)

    def decoder(self, n_classes: int) -> UNetDecoder:
        """Return a new decoder to `n_classes` logits, background included, with random weights."""
        sizes = self.channels, self.strides, self.kernels, self.convs
        return UNetDecoder(*sizes, n_classes, checkpoint=self.checkpoint)


class UNetEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features per level, shallow to deep, level i of `channels[i]` channels.

    Raises:
        ValueError: the size does not fit the strides.
    """

    def __init__(
        self,
        channels: list[int],
        strides: tuple[Triple, ...],
        kernels: tuple[Triple, ...],
        convs: list[int],
        *,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.channels = channels
        self.factor = total_stride(strides)
        self.levels = nn.ModuleList()
        inputs = 1
        for outputs, stride, kernel, n in zip(channels, strides, kernels, convs, strict=True):
            self.levels.append(_level(inputs, outputs, kernel, n, stride))
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of all levels."""
        check_size(x.shape[2:], self.factor)
        x = fast_layout(x)
        features = []
        for level in self.levels:
            x = run(level, x, enabled=self.checkpoint)
            features.append(x)
        return features


class UNetDecoder(nn.Module):
    """The encoder's features → logits (B, n_classes, X, Y, Z) at the input's size.

    Attributes:
        channels: of the features of all levels, deep to shallow.
    """

    def __init__(
        self,
        channels: list[int],
        strides: tuple[Triple, ...],
        kernels: tuple[Triple, ...],
        convs: list[int],
        n_classes: int,
        *,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.stem = strides[0]
        self.ups = nn.ModuleList()
        self.levels = nn.ModuleList()
        for i in reversed(range(len(channels) - 1)):
            stride = strides[i + 1]
            self.ups.append(
                nn.ConvTranspose3d(channels[i + 1], channels[i], stride, stride, bias=False)
            )
            self.levels.append(_level(2 * channels[i], channels[i], kernels[i], convs[i]))
        self.channels = channels[::-1]
        self.head = Pointwise(channels[0], n_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits."""
        return self.close(self.rise(features)[-1])

    def rise(self, features: list[Tensor]) -> list[Tensor]:
        """Return the features of all levels, deep to shallow; the deepest are the encoder's."""
        risen = [x := features[-1]]
        for up, level, skip in zip(self.ups, self.levels, reversed(features[:-1]), strict=True):
            x = run(partial(climb, up, level), x, skip, enabled=self.checkpoint)
            risen.append(x)
        return risen

    def close(self, x: Tensor) -> Tensor:
        """Return the logits of the shallowest features."""
        # Few channels, from here on read class by class: back to the channels-first layout.
        logits = self.head(x).contiguous()
        if self.stem == (1, 1, 1):
            return logits
        size = [n * s for n, s in zip(logits.shape[2:], self.stem, strict=True)]
        return F.interpolate(logits, size, mode="trilinear", align_corners=False)


def _level(
    inputs: int, outputs: int, kernel: Triple, n: int, stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    first = conv_norm_act(inputs, outputs, kernel, stride)
    return nn.Sequential(first, *(conv_norm_act(outputs, outputs, kernel) for _ in range(n - 1)))
