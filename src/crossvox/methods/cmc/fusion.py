"""Fusion of the modalities' deepest features into one addition to each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crossvox.networks.blocks import conv_norm_act, zero_pointwise


class Fusion(nn.Module):
    """Z = conv1³((conv3³-IN-LReLU)×2([F¹, …, Fᴹ])), to be added to each modality's features.

    The last convolution starts at zero, hence Z too. Where a modality is absent its place is
    taken by the mean of those present, so with a single one by that one's own features. Source:
    Zhou et al., MICCAI 2024, figure 1 (b).

    Args:
        channels: C of each modality's features.
        modalities: M, the number of places.
        reduction: what lies between has C / reduction channels.
    """

    def __init__(self, channels: int, modalities: int, reduction: int = 1) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.mix = nn.Sequential(
            conv_norm_act(modalities * channels, inner), conv_norm_act(inner, inner)
        )
        self.close = zero_pointwise(inner, channels)

    def forward(self, features: Sequence[Tensor | None], present: Tensor) -> Tensor:
        """Fuse, row by row, what is present.

        Args:
            features: per modality (B, C, x, y, z) on one common grid, finite also where absent;
                None if absent in every row.
            present: (B, M) bool; every row has at least one True.

        Returns:
            Z, (B, C, x, y, z).
        """
        share = present / present.sum(dim=1, keepdim=True)
        given = [(i, f) for i, f in enumerate(features) if f is not None]
        mean = torch.stack([f * _per_row(share[:, i]) for i, f in given]).sum(dim=0)
        places = [
            mean if f is None else torch.where(_per_row(present[:, i]), f, mean)
            for i, f in enumerate(features)
        ]
        return self.close(self.mix(torch.cat(places, dim=1)))


def _per_row(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)
