"""The prompt encoder of SAM-Med3D: points and a rough mask as embeddings; also for no prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crossvox.batch import Triple
from crossvox.networks.blocks import full_precision
from crossvox.networks.sam.image_encoder import ChannelNorm


class PositionCode(nn.Module):
    """Random Fourier features of positions; their frequencies are drawn once and never trained.

    Args:
        channels: of a code, a multiple of 3.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        frequencies = torch.randn(3, channels // 3)
        self.register_buffer("positional_encoding_gaussian_matrix", frequencies)

    def forward(self, positions: Tensor) -> Tensor:
        """Positions (…, 3) in [0, 1] → codes (…, channels), the sine in it twice as published."""
        # Half precision would garble the angles, which reach many turns.
        with full_precision(positions):
            angles = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
            return torch.cat([angles.sin(), angles.cos(), angles.sin()], dim=-1)


class NoPrompt(nn.Module):
    """What the mask decoder is told where nobody prompts.

    Parameters have the published names, less `prompt_encoder.`.

    Args:
        channels: C, of the embeddings, a multiple of 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.pe_layer = PositionCode(channels)
        self.no_mask_embed = nn.Embedding(1, channels)

    def positions(self, grid: Triple) -> Tensor:
        """Codes (1, C, *grid) of the grid's cells, from the second axis, the first, the third."""
        like = self.pe_layer.positional_encoding_gaussian_matrix
        axes = [(torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n for n in grid]
        first, second, third = torch.meshgrid(*axes, indexing="ij")
        # The original swaps the first two axes here, though not for points: weights know it so.
        return self.pe_layer(torch.stack([second, first, third], dim=-1)).movedim(-1, 0)[None]

    def no_mask(self) -> Tensor:
        """The dense embedding of no mask, (1, C, 1, 1, 1): the same everywhere."""
        return self.no_mask_embed.weight[..., None, None, None]


class PromptEncoder(NoPrompt):
    """Points and a rough mask as embeddings.

    Source: Wang et al., SAM-Med3D, 2023. The original's boxes cannot work, and there are none.

    Args:
        channels: C, of the embeddings, a multiple of 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(2))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv3d(1, 4, 2, stride=2),
            ChannelNorm(4),
            nn.GELU(),
            nn.Conv3d(4, 16, 2, stride=2),
            ChannelNorm(16),
            nn.GELU(),
            nn.Conv3d(16, channels, 1),
        )

    def points(self, points: Tensor, labels: Tensor, image: Triple) -> Tensor:
        """Sparse embeddings (B, N + 1, C); one that says no point comes last, as in the original.

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
        """Dense embedding (B, C, *G) of a mask's logits (B, 1, *4 G)."""
        return self.mask_downscaling(logits)
