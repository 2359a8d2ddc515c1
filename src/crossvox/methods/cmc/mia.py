"""Modality-Independent Awareness, MIA (Zhou et al., MICCAI 2024, § 2.1 and figure 1).

The paper names modality-aware attention (its reference 15), 3-D convolutions and prints no
formula. The legend of figure 1 prints a softmax and no axis; reference 15 has a sigmoid. `MIA` is
our reading of both; `ChannelAttention` is what the authors' released code uses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crossvox.errors import check_choice
from crossvox.networks.blocks import Pointwise, conv, conv_norm_act, full_precision, zero_pointwise

MIAForm = Literal["gate", "softmax", "danet", "none"]


class MIA(nn.Module):
    """Gated attention over the deepest features: F_ds → F_mia, both (B, C, x, y, z).

        h     = conv1³(F_ds)
        A     = σ(conv3³(LReLU(IN(conv3³([F_ds, h])))))
        F_mia = F_ds + conv1³(A ⊙ h)

    The last convolution starts at zero, so that the module starts as the identity. Instead of the
    sigmoid σ a softmax over the channels of a position may stand, as figure 1 has it. It is
    multiplied by their number: gates of a mean of 1 / channels would all but close the branch.

    Args:
        channels: C.
        reduction: h, A and the layers between have C / reduction channels.
        softmax: use the softmax.

    Examples:
        >>> f_ds = torch.randn(2, 64, 5, 5, 3)
        >>> torch.equal(MIA(channels=64)(f_ds), f_ds)  # at first
        True
    """

    def __init__(self, channels: int, reduction: int = 4, *, softmax: bool = False) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.project = Pointwise(channels, inner)
        self.mix = conv_norm_act(channels + inner, inner)
        self.gate = conv(inner, inner, (3, 3, 3))
        self.close = zero_pointwise(inner, channels)
        self.softmax = softmax

    def forward(self, f_ds: Tensor) -> Tensor:
        """Return F_mia."""
        h = self.project(f_ds)
        scores = self.gate(self.mix(torch.cat([f_ds, h], dim=1)))
        attention = h.shape[1] * scores.softmax(dim=1) if self.softmax else scores.sigmoid()
        return f_ds + self.close(attention * h)


class ChannelAttention(nn.Module):
    """Channel attention of DANet: F_mia = F_ds + γ · softmax(max E − E) F_ds, with E = F_ds F_dsᵀ.

    F_ds is read as a C × N matrix, the softmax runs along rows, and γ starts at 0. Source: Fu et
    al., Dual Attention Network, CVPR 2019, § 3.3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, f_ds: Tensor) -> Tensor:
        """Return F_mia: (B, C, x, y, z) → the same shape."""
        # Sums over all voxels overflow and lose digits in half precision.
        with full_precision(f_ds):
            x = f_ds.float().flatten(2)
            energy = x @ x.transpose(1, 2)
            attention = (energy.amax(dim=2, keepdim=True) - energy).softmax(dim=2)
            return f_ds + self.gamma * (attention @ x).view(f_ds.shape)


def make_mia(form: MIAForm, channels: int, reduction: int = 4) -> nn.Module:
    """Build the awareness module called `form`; "none" is the identity.

    "gate" is `MIA` with the sigmoid, "softmax" the same with the softmax.

    Raises:
        ValueError: the form is unknown.
    """
    check_choice("mia", form, MIAForm)
    if form == "none":
        return nn.Identity()
    if form == "danet":
        return ChannelAttention()
    return MIA(channels, reduction, softmax=form == "softmax")
