"""Modality-independent awareness: attention that picks out what the modalities have in common."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crossvox.errors import check_choice
from crossvox.networks.blocks import Pointwise, conv, conv_norm_act, full_precision, zero_pointwise

MIAForm = Literal["gate", "danet", "none"]


class MIA(nn.Module):
    """Gated attention over deepest features: (B, C, x, y, z) → the same shape.

    h = conv1³(F); A = σ(conv3³(conv3³-IN-LReLU([F, h]))); result F + conv1³(A ⊙ h). The last
    convolution starts at zero, hence the module as the identity. Source: Zhou et al., MICCAI
    2024, § 2.1, which names attention and convolutions but prints no formula.

    Args:
        channels: C.
        reduction: h, A and what lies between have C / reduction channels.
    """

    def __init__(self, channels: int, reduction: int = 1) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.project = Pointwise(channels, inner)
        self.mix = conv_norm_act(channels + inner, inner)
        self.gate = conv(inner, inner, (3, 3, 3))
        self.close = zero_pointwise(inner, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Add to the features what their attention lets through."""
        h = self.project(features)
        attention = self.gate(self.mix(torch.cat([features, h], dim=1))).sigmoid()
        return features + self.close(attention * h)


class ChannelAttention(nn.Module):
    """DANet's channel attention, as the authors' released code has it: F + γ · softmax(…) F.

    With X the features as a C × N matrix, E = X Xᵀ and the attention softmax(max E − E) along
    rows; γ starts at 0. Source: Fu et al., CVPR 2019, § 3.3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, x, y, z) → the same shape."""
        # Sums over all voxels overflow and lose digits in half precision.
        with full_precision(features):
            x = features.float().flatten(2)
            energy = x @ x.transpose(1, 2)
            attention = (energy.amax(dim=2, keepdim=True) - energy).softmax(dim=2)
            return features + self.gamma * (attention @ x).view(features.shape)


def make_mia(form: MIAForm, channels: int, reduction: int = 1) -> nn.Module:
    """The awareness module called `form`.

    Raises:
        ValueError: if there is none of that name.
    """
    check_choice("mia", form, MIAForm)
    if form == "none":
        return nn.Identity()
    return ChannelAttention() if form == "danet" else MIA(channels, reduction)
