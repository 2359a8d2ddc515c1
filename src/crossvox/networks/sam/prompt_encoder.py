"""The part of SAM-Med3D's prompt encoder that is needed without a prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crossvox.batch import Triple
from crossvox.networks.blocks import full_precision


class PositionEncoding(nn.Module):
    """Random Fourier features of positions; the frequencies are drawn once and never trained.

    Args:
        channels: channels of an encoding, a multiple of 3.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        frequencies = torch.randn(3, channels // 3)
        self.register_buffer("positional_encoding_gaussian_matrix", frequencies)

    def forward(self, positions: Tensor) -> Tensor:
        """Encode positions (…, 3) in [0, 1] → (…, channels), with the sine twice, as published."""
        # The angles reach many turns, for which half precision is too coarse.
        with full_precision(positions):
            angles = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
            return torch.cat([angles.sin(), angles.cos(), angles.sin()], dim=-1)


class PromptlessEncoder(nn.Module):
    """Embeddings for the mask decoder without a prompt.

    Parameters have the published names, without `prompt_encoder.`.

    Args:
        channels: C of the embeddings, a multiple of 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.pe_layer = PositionEncoding(channels)
        self.no_mask_embed = nn.Embedding(1, channels)

    def positions(self, grid: Triple) -> Tensor:
        """Return the encodings (1, C, *grid) of the grid's cells."""
        like = self.pe_layer.positional_encoding_gaussian_matrix
        axes = [(torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in grid]
        first, second, third = torch.meshgrid(*axes, indexing="ij")
        # The original swaps the first two axes here, but not for points; weights were trained so.
        return self.pe_layer(torch.stack([second, first, third], dim=-1)).movedim(-1, 0)[None]

    def no_mask(self) -> Tensor:
        """Return the dense embedding of no mask, (1, C, 1, 1, 1), the same for all cells."""
        return self.no_mask_embed.weight[..., None, None, None]
