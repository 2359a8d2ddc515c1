"""The prompt encoder of SAM-Med3D: embeddings of points, of a rough mask, or of no prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crossvox.batch import Triple
from crossvox.networks.blocks import full_precision
from crossvox.networks.sam.blocks import LayerNorm3d


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


class PromptEncoder(PromptlessEncoder):
    """Embeddings of points and of a rough mask.

    Source: Wang et al., SAM-Med3D, 2023. Its box prompts are broken in the original and left out.

    Args:
        channels: C of the embeddings, a multiple of 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(2))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv3d(1, 4, 2, stride=2),
            LayerNorm3d(4),
            nn.GELU(),
            nn.Conv3d(4, 16, 2, stride=2),
            LayerNorm3d(16),
            nn.GELU(),
            nn.Conv3d(16, channels, 1),
        )

    def points(self, points: Tensor, labels: Tensor, image: Triple) -> Tensor:
        """Return sparse embeddings (B, N + 1, C); as in the original, the last is "no point".

        Args:
            points: (B, N, 3), voxels of the image.
            labels: (B, N), 1 inside the object, 0 outside, −1 no point.
            image: size of the image.
        """
        code = self.pe_layer((points + 0.5) / points.new_tensor(image))
        outside, inside = self.point_embeddings.parameters()
        nothing = self.not_a_point_embed.weight
        kind = labels[..., None]
        code = torch.where(kind < 0, nothing, code)
        code = code + torch.where(kind == 0, outside, 0.0) + torch.where(kind == 1, inside, 0.0)
        return torch.cat([code, nothing.expand(len(code), 1, -1)], dim=1)

    def mask(self, logits: Tensor) -> Tensor:
        """Return the dense embedding (B, C, *G) of a mask's logits (B, 1, *4 G)."""
        return self.mask_downscaling(logits)
