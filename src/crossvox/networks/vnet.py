"""The original V-Net (Milletari et al., 3DV 2016): 5³ convolutions, residual blocks, no norm."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from crossvox.batch import CropRule, Task
from crossvox.errors import check_choice, require
from crossvox.networks.blocks import InstanceNorm, Pointwise, conv, fast_layout

Counts = Literal["prototxt", "figure"]
VNetNorm = Literal["none", "instance"]

COUNTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "prototxt": ((1, 1, 2, 3, 3), (1, 1, 2, 3)),
    "figure": ((1, 2, 3, 3, 3), (1, 2, 3, 3)),
}
"""Convolutions per block on the way down and on the way up, both beginning at the image's size."""

CROP = CropRule(multiple=16)
KERNEL = (5, 5, 5)


class VNetBackbone:
    """The original V-Net, 62 million parameters at 2 classes.

    Five levels of `width` · 2^i channels. A block's input is added to the output of its
    convolutions, followed by PReLU. 2³ convolutions lead down and up; skips are concatenated.
    Source: Milletari et al., V-Net, 3DV 2016, and its released network definition.

    Args:
        task: gives the patch.
        width: channels at the image's size; 16 in the publication.
        counts: convolutions per block as in the released definition ("prototxt") or as in the
            paper's "figure" (65 million parameters).
        norm: "none" as published, or "instance" after every convolution of a block.

    Raises:
        ValueError: an option is unknown, or the patch does not fit the strides.
    """

    def __init__(
        self,
        task: Task,
        *,
        width: int = 16,
        counts: Counts = "prototxt",
        norm: VNetNorm = "none",
    ) -> None:
        require("backbone.width", width, 1)
        check_choice("counts", counts, Counts)
        check_choice("norm", norm, VNetNorm)
        CROP.check(task.patch, "vnet")
        self.widths = [width * 2**i for i in range(5)]
        self.down, self.up = COUNTS[counts]
        self.norm = norm == "instance"

    @staticmethod
    def crop(**options: object) -> CropRule:
        """Return the rule: multiples of 16, whatever the options."""
        return CROP

    def encoder(self) -> VNetEncoder:
        """Return a new encoder with random weights."""
        return VNetEncoder(self.widths, self.down, self.norm)

    def decoder(self, n_classes: int) -> VNetDecoder:
        """Return a new decoder to `n_classes` logits, background included, with random weights."""
        return VNetDecoder(self.widths, self.up, self.norm, n_classes)


class VNetEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features per level, shallow to deep, level i of `channels[i]` channels.

    Args:
        widths: channels per level.
        counts: convolutions per level.
        norm: whether instance norm follows them.

    Raises:
        ValueError: the size does not fit the strides.
    """

    def __init__(self, widths: list[int], counts: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.channels = widths
        self.blocks = nn.ModuleList(
            _Block(1 if level == 0 else width, width, n, norm)
            for level, (width, n) in enumerate(zip(widths, counts, strict=True))
        )
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv3d(above, width, 2, stride=2), nn.PReLU(width))
            for above, width in pairwise(widths)
        )
        self.apply(_msra)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of all levels."""
        CROP.check(x.shape[2:], "vnet")
        features = [self.blocks[0](fast_layout(x))]
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


class VNetDecoder(nn.Module):
    """The encoder's features → logits (B, n_classes, X, Y, Z) at the input's size.

    Args:
        widths: channels per level of the encoder; the blocks here have twice as many.
        counts: convolutions per level.
        norm: whether instance norm follows them.
        n_classes: logits per voxel.
    """

    def __init__(
        self, widths: list[int], counts: tuple[int, ...], norm: bool, n_classes: int
    ) -> None:
        super().__init__()
        below = [*(2 * width for width in widths[1:-1]), widths[-1]]
        levels = list(zip(below, widths[:-1], counts, strict=True))[::-1]
        self.ups = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose3d(deep, width, 2, stride=2), nn.PReLU(width))
            for deep, width, _ in levels
        )
        self.blocks = nn.ModuleList(_Block(2 * width, 2 * width, n, norm) for _, width, n in levels)
        self.head = nn.Sequential(
            conv(2 * widths[0], n_classes, KERNEL),
            nn.PReLU(n_classes),
            Pointwise(n_classes, n_classes),
        )
        self.apply(_msra)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits."""
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        return self.head(x).contiguous()


class _Block(nn.Module):
    """PReLU(x + conv(… PReLU(conv(x)))); a single input channel is added to all outputs."""

    def __init__(self, inputs: int, outputs: int, n: int, norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(n):
            layers += [nn.PReLU(outputs)] if i else []
            layers.append(conv(outputs if i else inputs, outputs, KERNEL))
            if norm:
                # The norm subtracts any bias again, so one here would never get a gradient.
                layers[-1].register_parameter("bias", None)
                layers.append(InstanceNorm(outputs))
        self.convs = nn.Sequential(*layers)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) → (B, outputs, X, Y, Z)."""
        return self.act(x + self.convs(x))


def _msra(module: nn.Module) -> None:
    """Initialise as the original does (He et al., ICCV 2015)."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
