"""The mask decoder of SAM-Med3D: a two-way transformer between mask tokens and the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.networks.sam.blocks import MLP, LayerNorm3d, MLPBlock
from crossvox.networks.sam.prompt_encoder import PromptlessEncoder

HEADS = 8
CHANNELS_STEP = 48
"""Channels must be a multiple: divided by 3 in position encodings, by 2 and 8 heads, and by 8."""


class MaskDecoder(nn.Module):
    """Image embedding and prompt → one mask per mask token, with a score each.

    Parameters have the published names, without `mask_decoder.`. Sources: Kirillov et al., Segment
    Anything, ICCV 2023; Wang et al., SAM-Med3D, 2023.

    Args:
        channels: C of the embeddings, a multiple of 48; 384 in the publication.
        masks: number of mask tokens; 4 in the publication, the first for a single answer.
        rated: whether masks get scores (predicted IoU).
    """

    def __init__(self, channels: int, masks: int = 4, *, rated: bool = True) -> None:
        super().__init__()
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(masks, channels)
        self.transformer = TwoWayTransformer(channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(channels, channels // 4, 2, stride=2),
            LayerNorm3d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose3d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP([channels, channels, channels, channels // 8]) for _ in range(masks)
        )
        if rated:
            hidden = 2 * channels // 3
            self.iou_prediction_head = MLP([channels, hidden, hidden, masks])

    def forward(
        self, image: Tensor, positions: Tensor, dense: Tensor, sparse: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode masks.

        Args:
            image: image embedding (B, C, *G).
            positions: position encodings (1, C, *G) of its cells.
            dense: embedding of a mask prompt, or of none; added to the image's.
            sparse: embeddings (B, N, C) of points; None = no point.

        Returns:
            Logits (B, masks, *4 G), and scores (B, masks), None unless rated.
        """
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = tokens.expand(len(image), -1, -1)
        if sparse is not None:
            tokens = torch.cat([tokens, sparse], dim=1)
        cells = (image + dense).flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(tokens, cells, positions.flatten(2).transpose(1, 2))
        voxels = self.output_upscaling(cells.transpose(1, 2).unflatten(2, image.shape[2:]))
        weights = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        logits = torch.einsum("bmc,bcxyz->bmxyz", torch.stack(weights, dim=1), voxels)
        rated = hasattr(self, "iou_prediction_head")
        return logits, self.iou_prediction_head(tokens[:, 0]) if rated else None


class ClassMaskDecoder(nn.Module):
    """[deepest] → logits (B, n_classes, X, Y, Z): a mask token per class, no prompt.

    The deepest feature is (B, C, *G). Logits of size 4 G are resampled to the image's size, so that
    borders are as fine as a quarter of a patch. State-dict names are the published ones, with
    `prompt_encoder.` and `mask_decoder.`.

    Args:
        channels: C of the deepest feature, a multiple of 48.
        n_classes: number of logits, background included.
        patch: side in voxels of what became one position of G.
    """

    def __init__(self, channels: int, n_classes: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.prompt_encoder = PromptlessEncoder(channels)
        self.mask_decoder = MaskDecoder(channels, n_classes, rated=False)
        for module in self.modules():
            if isinstance(module, CrossAttention):
                # It shifts all logits of a query alike, which softmax cancels.
                module.k_proj.bias.requires_grad_(False)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits."""
        deepest = features[-1]
        x, y, z = deepest.shape[2:]
        positions = self.prompt_encoder.positions((x, y, z))
        logits, _ = self.mask_decoder(deepest, positions, self.prompt_encoder.no_mask())
        size = [self.patch * n for n in (x, y, z)]
        return F.interpolate(logits, size, mode="trilinear")

    def published_names(self) -> list[str]:
        """Return the names that SAM-Med3D's files have too: all but those of single classes."""
        own = ("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps.")
        return [name for name in self.state_dict() if not name.startswith(own)]


class TwoWayTransformer(nn.Module):
    """Tokens (B, T, C) and image cells (B, N, C) attend to each other; both are returned.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(channels, first=first) for first in (True, False))
        self.final_attn_token_to_image = CrossAttention(channels, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, cells: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Transform both; `positions` (1, N, C) encode the cells, the input tokens themselves."""
        given = tokens
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, given, positions)
        read = self.final_attn_token_to_image(tokens + given, cells + positions, cells)
        return self.norm_final_attn(tokens + read), cells


class TwoWayBlock(nn.Module):
    """Tokens attend to tokens, then to the image; a perceptron; the image attends to the tokens.

    Args:
        channels: channels of tokens and cells.
        first: whether it is a transformer's first block, which replaces the tokens instead of
            adding to them.
    """

    def __init__(self, channels: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = CrossAttention(channels, channels // 2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, 16 * channels // 3, F.relu)
        self.norm3 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = CrossAttention(channels, channels // 2)
        self.norm4 = nn.LayerNorm(channels)

    def forward(
        self, tokens: Tensor, cells: Tensor, given: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Transform both; `given` and `positions` are added to queries and keys, not to values."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + given
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        read = self.cross_attn_token_to_image(tokens + given, cells + positions, cells)
        tokens = self.norm2(tokens + read)
        tokens = self.norm3(tokens + self.mlp(tokens))
        read = self.cross_attn_image_to_token(cells + positions, tokens + given, tokens)
        return tokens, self.norm4(cells + read)


class CrossAttention(nn.Module):
    """Multi-head attention: queries (B, T, C), keys and values (B, N, C) → (B, T, C).

    Args:
        channels: C.
        inner: channels of all heads together.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Let the queries attend to the keys."""
        q, k, v = (
            projection(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for projection, x in (
                (self.q_proj, queries),
                (self.k_proj, keys),
                (self.v_proj, values),
            )
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))
