"""A U-Net-like decoder for encoders whose features all lie on one coarse grid."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from crossvox.networks.blocks import Pointwise, climb, conv_norm_act, fast_layout
from crossvox.networks.checkpointing import run


class PyramidDecoder(nn.Module):
    """[image, tap 1, …, tap n, deepest] → logits (B, n_classes, X, Y, Z) at the image's size.

    Taps and the deepest feature lie on a grid that is 2ⁿ times coarser than the image. Transposed
    convolutions bring the first tap to half the image's resolution, each further tap to half of
    the one before; the last stays where it is. These are the skips of a U-Net. The topmost skip
    is the image after a convolution, since the tokens of a patch know little of the border that
    runs through it. The idea is UNETR's (Hatamizadeh et al., WACV 2022).

    Args:
        channels: of the features.
        widths: channels per resolution, n + 1 of them, the image's first. At the image's own size
            a few suffice, and each takes much memory.
        n_classes: of the logits.
        checkpoint: whether the backward pass computes lifts and levels again.
    """

    def __init__(
        self, channels: list[int], widths: list[int], n_classes: int, *, checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        image, *taps, deepest = channels
        self.stem = conv_norm_act(image, widths[0])
        self.lifts = nn.ModuleList(
            _lift(inputs, widths[level:]) for level, inputs in enumerate(taps, start=1)
        )
        self.bottom = conv_norm_act(deepest + widths[-1], widths[-1])
        steps = list(zip(widths[1:], widths, strict=False))[::-1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(below, width, 2, stride=2, bias=False) for below, width in steps
        )
        self.levels = nn.ModuleList(conv_norm_act(2 * width, width) for _, width in steps)
        self.head = Pointwise(widths[0], n_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits."""
        image, *taps, deepest = features
        again = self.checkpoint
        skips = [run(self.stem, fast_layout(image), enabled=again)]
        pairs = zip(self.lifts, taps, strict=True)
        skips += [run(lift, tap, enabled=again) for lift, tap in pairs]
        x = self.bottom(torch.cat([deepest, skips.pop()], dim=1))
        for up, level in zip(self.ups, self.levels, strict=True):
            x = run(partial(climb, up, level), x, skips.pop(), enabled=again)
        # Few channels, from here on read class by class: back to the channels-first layout.
        return self.head(x).contiguous()


def _lift(inputs: int, widths: list[int]) -> nn.Sequential:
    """Build the way from the coarsest resolution to that of widths[0], doubling at each step."""
    *above, coarsest = widths
    if not above:
        return conv_norm_act(inputs, coarsest, (1, 1, 1))
    steps = []
    for width in reversed(above):
        steps.append(conv_norm_act(inputs, width))
        steps[-1][0] = nn.ConvTranspose3d(inputs, width, 2, stride=2, bias=False)
        inputs = width
    return nn.Sequential(*steps)
