"""The convolutional and the attention parts of mmFormer (Zhang et al., MICCAI 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Triple
from crossvox.networks.blocks import InstanceNorm, Pointwise, conv, fast_layout

SLOPE = 0.2
POINT: Triple = (1, 1, 1)


class ConvEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features per level, shallow to deep, level i of `channels[i]` channels.

    A level is entered by a convolution with its stride, to whose result x two more are added:
    x + c(c(x)).

    Args:
        channels: per level.
        strides: per level.
        kernels: per level.
    """

    def __init__(
        self, channels: list[int], strides: Sequence[Triple], kernels: Sequence[Triple]
    ) -> None:
        super().__init__()
        # The image itself is not normalised before its first convolution.
        self.channels = list(channels)
        self.enter = nn.ModuleList([_unbiased(1, channels[0], kernels[0], strides[0])])
        for i in range(1, len(channels)):
            entrance = norm_act_conv(channels[i - 1], channels[i], kernels[i], strides[i])
            self.enter.append(entrance)
        self.refine = nn.ModuleList(
            nn.Sequential(norm_act_conv(c, c, kernel), norm_act_conv(c, c, kernel))
            for c, kernel in zip(channels, kernels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of every level."""
        x = fast_layout(x)
        features = []
        for enter, refine in zip(self.enter, self.refine, strict=True):
            x = enter(x)
            x = x + refine(x)
            features.append(x)
        return features


class UpPath(nn.Module):
    """Features, shallow to deep → decoded features of every level, shallow to deep.

    The deepest is passed on as it is. Towards the image: a convolution, trilinear resizing,
    concatenation with the skip, a convolution, and one of 1³. The original resizes first, and its
    first convolution then costs eight times as much.

    Args:
        channels: per level.
        kernels: per level.
    """

    def __init__(self, channels: list[int], kernels: Sequence[Triple]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList()
        self.join = nn.ModuleList()
        for i, (width, deeper) in enumerate(pairwise(channels)):
            kernel = kernels[i]
            self.reduce.append(norm_act_conv(deeper, width, kernels[i + 1]))
            self.join.append(
                nn.Sequential(
                    norm_act_conv(2 * width, width, kernel), norm_act_conv(width, width, POINT)
                )
            )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decoded features of every level."""
        decoded = [features[-1]]
        for level in reversed(range(len(self.reduce))):
            skip = features[level]
            x = resize(self.reduce[level](decoded[0]), skip.shape[2:])
            decoded.insert(0, self.join[level](torch.cat([x, skip], dim=1)))
        return decoded


def fusion_block(channels: int, modalities: int, kernel: Triple) -> nn.Sequential:
    """(B, M·C, X, Y, Z), the modalities' features one after the other → (B, C, X, Y, Z)."""
    return nn.Sequential(
        norm_act_conv(modalities * channels, channels, POINT),
        norm_act_conv(channels, channels, kernel),
        norm_act_conv(channels, channels, POINT),
    )


class TokenBlock(nn.Module):
    """A pre-norm transformer block, which adds the positions at its entrance.

    Args:
        embed: E, channels of a token.
        heads: of attention.
        mlp_ratio: the perceptron has that many times E channels inside.
        dropout: probability, in attention and after each layer.
    """

    def __init__(self, embed: int, heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(embed)
        self.qkv = nn.Linear(embed, 3 * embed, bias=False)
        self.project = nn.Sequential(nn.Linear(embed, embed), nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(embed),
            nn.Linear(embed, mlp_ratio * embed),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_ratio * embed, embed),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Transform tokens.

        Args:
            tokens: (B, N, E).
            positions: (1, N, E).
            keys: (B, N) bool, the tokens that are attended to; at least one in each row. None =
                all of them.

        Returns:
            (B, N, E).
        """
        x = tokens + positions
        x = x + self.project(self._attend(self.norm(x), keys))
        return x + self.perceptron(x)

    def _attend(self, x: Tensor, keys: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if keys is None else keys[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return found.transpose(1, 2).flatten(2)


def norm_act_conv(
    inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    """Instance norm → leaky ReLU → convolution."""
    convolution = _unbiased(inputs, outputs, kernel, stride)
    return nn.Sequential(InstanceNorm(inputs), nn.LeakyReLU(SLOPE, inplace=True), convolution)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Trilinear interpolation of (B, C, X, Y, Z) to another size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode="trilinear", align_corners=False)


def _unbiased(inputs: int, outputs: int, kernel: Triple, stride: Triple) -> nn.Conv3d:
    """A convolution whose bias the next level's norm would subtract again, hence without."""
    point = kernel == POINT and stride == POINT
    made = Pointwise(inputs, outputs) if point else conv(inputs, outputs, kernel, stride)
    made.register_parameter("bias", None)
    return made
