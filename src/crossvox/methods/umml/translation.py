"""Small 3-D networks that make one modality's images look like another's, and their critics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossvox.batch import Task, Triple
from crossvox.networks.blocks import (
    SLOPE,
    Pointwise,
    conv,
    conv_norm_act,
    fast_layout,
)

KERNEL = (3, 3, 3)
BLOCKS = 2


class Translator(nn.Module):
    """(B, 1, X, Y, Z) → (B, 1, X, Y, Z) in another modality's appearance.

    Context is gathered at reduced resolution by two residual blocks with instance norm (after the
    generator of CycleGAN, Zhu et al., ICCV 2017); what it says joins each voxel's own value in a
    small pointwise network, which is thus a tone curve chosen by context. The edges of the image
    need not pass through the coarse grid, and cannot move.

    There is no skip from image to translation: one that starts as the identity has a perfect cycle
    from the first step, and then never leaves it for what the discriminator asks.

    Args:
        task: its patch and spacing decide which axes are reduced.
        width: channels of the tone curve; the coarse grid has twice as many.
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        stride = reduction(task)
        inner = 2 * width
        self.enter = conv_norm_act(1, inner, KERNEL, stride)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm_act(inner, inner), conv_norm_act(inner, inner))
            for _ in range(BLOCKS)
        )
        self.leave = nn.ConvTranspose3d(inner, width, stride, stride)
        self.tone = nn.Sequential(
            Pointwise(width + 1, width), nn.LeakyReLU(SLOPE), Pointwise(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The translation."""
        x = fast_layout(x)
        context = self.enter(x)
        for block in self.blocks:
            context = context + block(context)
        translation: Tensor = self.tone(torch.cat([self.leave(context), x], dim=1))
        return translation


class Discriminator(nn.Module):
    """(B, 1, X, Y, Z) → (B, 1, x, y, z), how real each patch of an image looks: 1 real, 0 not.

    Args:
        task: its patch and spacing decide which axes are reduced.
        width: channels of the first of three levels, which double.
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        stride = reduction(task)
        self.layers = nn.Sequential(
            conv(1, width, KERNEL, stride),
            nn.LeakyReLU(0.2),
            conv_norm_act(width, 2 * width, KERNEL, stride),
            conv_norm_act(2 * width, 4 * width),
            Pointwise(4 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of overlapping patches."""
        scores: Tensor = self.layers(fast_layout(x))
        return scores


def reduction(task: Task) -> Triple:
    """Stride 2 along the axes that are even and not much coarser than the finest, else 1."""
    finest = min(task.spacing)
    x, y, z = (
        2 if n % 2 == 0 and n > 2 and mm < 2 * finest else 1
        for n, mm in zip(task.patch, task.spacing, strict=True)
    )
    return x, y, z
