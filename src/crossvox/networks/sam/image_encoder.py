"""The image encoder of SAM-Med3D: a vision transformer over 3-D patches, with adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import CropRule
from crossvox.networks.checkpointing import run
from crossvox.networks.sam.adapter import Adapter
from crossvox.networks.sam.attention import WindowAttention
from crossvox.networks.sam.blocks import LayerNorm3d, MLPBlock

FreezeForm = Literal["paper", "all_but_adapter", "none"]


@dataclass(frozen=True)
class ViTConfig:
    """Configuration of the image encoder; the defaults are the published ViT-B's.

    Attributes:
        channels_in: channels of the image.
        image: side of the crop that the position grid and the global tables are made for.
        patch: side of a patch in voxels; a token stands for one patch.
        embed: channels of a token, a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        mlp_ratio: hidden channels of a block's perceptron, as a multiple of `embed`.
        window: side of the attention windows in tokens; 0 makes all blocks global.
        global_blocks: indices, from 0, of the blocks that attend to all tokens.
        channels_out: channels of the neck.
        qkv_bias: whether queries, keys and values have a bias.
        norm_eps: epsilon of the blocks' layer norms.
        absolute_position: whether there is a position grid.
        relative_position: whether there are relative position tables.
        textbook_rel_pos: relative positions as in the textbook instead of SAM-Med3D's.
    """

    channels_in: int = 1
    image: int = 128
    patch: int = 16
    embed: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    channels_out: int = 384
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    absolute_position: bool = True
    relative_position: bool = True
    textbook_rel_pos: bool = False

    @property
    def grid(self) -> int:
        """Number of tokens per axis of the crop that the tables are made for."""
        return self.image // self.patch

    @property
    def title(self) -> str:
        """Name in messages about the crop."""
        return "sam_med3d without textbook_rel_pos" if self.crop.cubic else "sam_med3d"

    @property
    def crop(self) -> CropRule:
        """The crop sizes that the encoder accepts."""
        everywhere = self.window == 0 or any(i < self.depth for i in self.global_blocks)
        cubic = everywhere and self.relative_position and not self.textbook_rel_pos
        return CropRule(self.patch, cubic)


class SamMed3DEncoder(nn.Module):
    """Image (B, C, X, Y, Z) → [image, the tokens after some blocks, the neck's output].

    Without such tokens, the neck's output alone.

    With G = size / patch per axis, tokens are (B, embed, *G) and the neck's output is
    (B, channels_out, *G). Apart from the adapters the parameters have the published names, without
    `image_encoder.`. Position grid and tables keep the published size and are resampled for other
    crops. Source: Wang et al., SAM-Med3D, 2023.

    Args:
        config: sizes and choices.
        taps: numbers, from 1, of the blocks after which tokens are returned.
        reduction: reduction of the adapter in each block; 0 is no adapter.
        checkpoint: whether the backward pass computes the blocks again.
    """

    def __init__(
        self,
        config: ViTConfig,
        taps: tuple[int, ...] = (),
        reduction: int = 0,
        *,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.config, self.taps = config, taps
        skips = [config.channels_in, *(config.embed for _ in taps)] if taps else []
        self.channels = [*skips, config.channels_out]
        self.patch_embed = PatchEmbedding(config)
        if config.absolute_position:
            self.pos_embed = nn.Parameter(torch.zeros(1, *(3 * [config.grid]), config.embed))
        self.blocks = nn.ModuleList(
            TransformerBlock(config, i, reduction) for i in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv3d(config.embed, config.channels_out, 1, bias=False),
            LayerNorm3d(config.channels_out),
            nn.Conv3d(config.channels_out, config.channels_out, 3, padding=1, bias=False),
            LayerNorm3d(config.channels_out),
        )
        self._initialise()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the image itself and the taps, if there are any, and the neck's output.

        Raises:
            ValueError: the size is no multiple of the patch, or not cubic where it has to be.
        """
        self.config.crop.check(x.shape[2:], self.config.title)
        features = [x] if self.taps else []
        tokens = self.patch_embed(x)
        if self.config.absolute_position:
            tokens = tokens + self._positions(tokens.shape[1:4])
        for i, block in enumerate(self.blocks, start=1):
            tokens = run(block, tokens, enabled=self.checkpoint)
            features += [tokens.movedim(-1, 1)] * self.taps.count(i)
        return [*features, self.neck(tokens.movedim(-1, 1))]

    def freeze(self, form: FreezeForm) -> None:
        """Choose which parameters are not trained.

        Args:
            form: "paper" freezes the patch embedding, the position grid and the attention with
                its relative tables (Zhou et al., MICCAI 2024, figure 1 b; layer norms and
                perceptrons are taken as trained). "all_but_adapter" freezes all but the adapters,
                "none" nothing.
        """
        for name, parameter in self.named_parameters():
            fixed = {
                "none": False,
                "paper": name.startswith(("pos_embed", "patch_embed.")) or ".attn." in name,
                "all_but_adapter": ".adapter." not in name,
            }
            parameter.requires_grad_(not fixed[form])

    def published_names(self) -> list[str]:
        """Return the names that SAM-Med3D's files have too: all but the adapters'."""
        return [name for name in self.state_dict() if ".adapter." not in name]

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        if self.pos_embed.shape[1:4] == grid:
            return self.pos_embed
        channels_first = self.pos_embed.movedim(-1, 1)
        return F.interpolate(channels_first, tuple(grid), mode="trilinear").movedim(1, -1)

    def _initialise(self) -> None:
        """Initialise for training from scratch; tables start at zero, as adapters do."""
        if self.config.absolute_position:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class TransformerBlock(nn.Module):
    """Pre-norm attention and perceptron, each with a residual, then the adapter.

    Tokens (B, D, H, W, C) → the same shape.
    """

    def __init__(self, config: ViTConfig, index: int, reduction: int = 0) -> None:
        super().__init__()
        window = 0 if index in config.global_blocks else config.window
        side = window or config.grid
        self.norm1 = nn.LayerNorm(config.embed, eps=config.norm_eps)
        self.attn = WindowAttention(
            config.embed,
            config.heads,
            (side, side, side) if config.relative_position else None,
            window=window,
            qkv_bias=config.qkv_bias,
            textbook=config.textbook_rel_pos,
        )
        self.norm2 = nn.LayerNorm(config.embed, eps=config.norm_eps)
        self.mlp = MLPBlock(config.embed, int(config.embed * config.mlp_ratio))
        self.adapter = Adapter(config.embed, reduction) if reduction else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens."""
        x = x + self.attn(self.norm1(x))
        return self.adapter(x + self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Image (B, C, X, Y, Z) → tokens (B, D, H, W, embed), one per patch."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(config.channels_in, config.embed, config.patch, stride=config.patch)

    def forward(self, x: Tensor) -> Tensor:
        """Project each patch."""
        return self.proj(x).movedim(1, -1)
