"""The fusion layer (Zhou et al., MICCAI 2024, § 2.1, last paragraph, and figure 1).

The paper merges F_mia^a and F_mia^b "in a fusion layer to produce the fused feature" and prints no
formula; the form, its place and what stands in for a missing modality are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crossvox.networks.blocks import conv_norm_act, zero_pointwise


class Fusion(nn.Module):
    """Fused feature Z of all modalities, to be added to each modality's own F_mia.

        Z = conv1³(LReLU(IN(conv3³( LReLU(IN(conv3³([F_mia^1, …, F_mia^M]))) ))))

    The last convolution starts at zero, hence Z too. The place of an absent modality is filled
    with the mean of those present; with one modality, that is its own features in all places.

    Args:
        channels: C of each modality's features.
        modalities: M, the number of places.
        reduction: the inner layers have C / reduction channels.

    Examples:
        >>> f_mia = [torch.randn(2, 64, 5, 5, 3) for _ in ("ct", "mr")]
        >>> present = torch.tensor([[True, True], [True, False]])  # row 1 has CT alone
        >>> Fusion(channels=64, modalities=2)(f_mia, present).shape
        torch.Size([2, 64, 5, 5, 3])
    """

    def __init__(self, channels: int, modalities: int, reduction: int = 1) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.mix = nn.Sequential(
            conv_norm_act(modalities * channels, inner), conv_norm_act(inner, inner)
        )
        self.close = zero_pointwise(inner, channels)

    def forward(self, f_mia: Sequence[Tensor | None], present: Tensor) -> Tensor:
        """Return Z, (B, C, x, y, z), of what is present in each row.

        Args:
            f_mia: per modality (B, C, x, y, z) on one common grid, finite also in absent rows;
                None for a modality that is absent in all rows.
            present: (B, M) bool; each row has at least one True.
        """
        share = present / present.sum(dim=1, keepdim=True)
        given = [(i, f) for i, f in enumerate(f_mia) if f is not None]
        mean = torch.stack([f * _per_row(share[:, i]) for i, f in given]).sum(dim=0)
        places = [
            mean if f is None else torch.where(_per_row(present[:, i]), f, mean)
            for i, f in enumerate(f_mia)
        ]
        return self.close(self.mix(torch.cat(places, dim=1)))


def _per_row(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)
