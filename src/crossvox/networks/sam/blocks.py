"""The layers that SAM-Med3D's encoders and decoder share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLPBlock(nn.Module):
    """Two linear layers with an activation between: (…, C) → (…, C).

    Args:
        channels: C.
        hidden: channels between the layers.
        activation: exact GELU by default.
    """

    def __init__(
        self, channels: int, hidden: int, activation: Callable[[Tensor], Tensor] = F.gelu
    ) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply them."""
        return self.lin2(self.activation(self.lin1(x)))


class MLP(nn.Module):
    """Linear layers with ReLUs between: (…, widths[0]) → (…, widths[-1])."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        steps = pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in steps)

    def forward(self, x: Tensor) -> Tensor:
        """Apply them."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


class LayerNorm3d(nn.Module):
    """Layer norm over the channels of each voxel: (B, C, X, Y, Z) → the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with biased variance and the published epsilon."""
        channels = self.weight.shape
        return F.layer_norm(x.movedim(1, -1), channels, self.weight, self.bias, 1e-6).movedim(-1, 1)
