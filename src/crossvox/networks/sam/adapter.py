"""The adapter of a transformer block (CMC, Zhou et al., MICCAI 2024, § 2.1 and figure 1 b)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Adapter(nn.Module):
    """Residual bottleneck on tokens (B, D, H, W, C): x + Up(GELU(Down(s·x))).

    Down is a 1³ convolution from C to C / reduction channels, Up a 3³ convolution back. Up starts
    at zero, so that the adapter starts as the identity; the scale s is learnt from 1. Figure 1 (b)
    draws scaling and adapter after the block's last sum, without a formula. The inner sum is from
    3DSAM-adapter (Gong et al., 2023).

    Args:
        channels: C.
        reduction: the bottleneck has max(1, C / reduction) channels.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.scale = nn.Parameter(torch.ones(()))
        self.down = nn.Linear(channels, inner)  # on tokens, a convolution of size 1
        self.up = nn.Conv3d(inner, channels, 3, padding=1)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add the bottleneck's output to the tokens."""
        inner = F.gelu(self.down(self.scale * x))
        return x + self.up(inner.movedim(-1, 1)).movedim(1, -1)
