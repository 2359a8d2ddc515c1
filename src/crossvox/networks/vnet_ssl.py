"""The "V-Net" of the semi-supervised literature: a plain U-Net whose skips are added."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from crossvox.batch import CropRule, Task
from crossvox.errors import check_choice, require
from crossvox.networks.blocks import InstanceNorm, Pointwise, fast_layout

NormForm = Literal["instance", "batch"]

CROP = CropRule(multiple=16)
DOWN = (1, 2, 3, 3, 3)
UP = (1, 2, 3, 3)
"""Convolutions per level, both beginning at the image's size."""


class VNetSSLBackbone:
    """The V-Net of UA-MT and of the works that follow it, 9.4 million parameters.

    Five levels of `width` · 2^i channels without residuals. Each 3³ convolution, and each 2³ one
    that leads down or up, is followed by norm and ReLU. Source: Yu et al., UA-MT, MICCAI 2019,
    and its released code.

    Args:
        task: gives the patch.
        width: channels at the image's size; 16 in the publication.
        norm: "instance", or "batch" as published, with running statistics at inference. With few
            crops per step these are poor, and a network that modalities share mixes theirs.
        dropout: probability of dropping a channel of the deepest feature and before the head;
            0.5 in the publication where a method asks for it.

    Raises:
        ValueError: an option is unknown, or the patch does not fit the strides.
    """

    def __init__(
        self,
        task: Task,
        *,
        width: int = 16,
        norm: NormForm = "instance",
        dropout: float = 0.0,
    ) -> None:
        require("backbone.width", width, 1)
        require("backbone.dropout", dropout, 0, 1)
        check_choice("norm", norm, NormForm)
        CROP.check(task.patch, "vnet_ssl")
        self.widths = [width * 2**i for i in range(5)]
        self.norm, self.dropout = norm, dropout

    @staticmethod
    def crop(**options: object) -> CropRule:
        """Return the rule: multiples of 16, whatever the options."""
        return CROP

    def encoder(self) -> VNetSSLEncoder:
        """Return a new encoder with random weights."""
        return VNetSSLEncoder(self.widths, self.norm, self.dropout)

    def decoder(self, n_classes: int) -> VNetSSLDecoder:
        """Return a new decoder to `n_classes` logits, background included, with random weights."""
        return VNetSSLDecoder(self.widths, self.norm, self.dropout, n_classes)


class VNetSSLEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features per level, shallow to deep, level i of `channels[i]` channels.

    Args:
        widths: channels per level.
        norm: see `VNetSSLBackbone`.
        dropout: probability of dropping a channel of the deepest feature.

    Raises:
        ValueError: the size does not fit the strides.
    """

    def __init__(self, widths: list[int], norm: NormForm, dropout: float) -> None:
        super().__init__()
        self.channels = widths
        inputs = [1, *widths[1:]]
        self.blocks = nn.ModuleList(
            _block(i, width, n, norm) for i, width, n in zip(inputs, widths, DOWN, strict=True)
        )
        self.downs = nn.ModuleList(
            _unit(nn.Conv3d(above, width, 2, stride=2, bias=False), norm)
            for above, width in pairwise(widths)
        )
        self.dropout = nn.Dropout3d(dropout)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of all levels."""
        CROP.check(x.shape[2:], "vnet_ssl")
        features = [self.blocks[0](fast_layout(x))]
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            features.append(block(down(features[-1])))
        return [*features[:-1], self.dropout(features[-1])]


class VNetSSLDecoder(nn.Module):
    """The encoder's features → logits (B, n_classes, X, Y, Z) at the input's size.

    Args:
        widths: channels per level.
        norm: see `VNetSSLBackbone`.
        dropout: probability of dropping a channel before the head.
        n_classes: logits per voxel.
    """

    def __init__(self, widths: list[int], norm: NormForm, dropout: float, n_classes: int) -> None:
        super().__init__()
        levels = list(zip(widths[1:], widths[:-1], UP, strict=True))[::-1]
        self.ups = nn.ModuleList(
            _unit(nn.ConvTranspose3d(below, width, 2, stride=2, bias=False), norm)
            for below, width, _ in levels
        )
        self.blocks = nn.ModuleList(_block(width, width, n, norm) for _, width, n in levels)
        self.dropout = nn.Dropout3d(dropout)
        self.head = Pointwise(widths[0], n_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits."""
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            x = block(up(x) + skip)
        return self.head(self.dropout(x)).contiguous()


def _block(inputs: int, outputs: int, n: int, norm: NormForm) -> nn.Sequential:
    sizes = [inputs] + [outputs] * (n - 1)
    return nn.Sequential(
        *(_unit(nn.Conv3d(i, outputs, 3, padding=1, bias=False), norm) for i in sizes)
    )


def _unit(layer: nn.Conv3d | nn.ConvTranspose3d, norm: NormForm) -> nn.Sequential:
    """Build convolution → norm → ReLU; the norm would subtract a bias of the layer again."""
    channels = layer.out_channels
    made = InstanceNorm(channels) if norm == "instance" else nn.BatchNorm3d(channels)
    return nn.Sequential(layer, made, nn.ReLU(inplace=True))
