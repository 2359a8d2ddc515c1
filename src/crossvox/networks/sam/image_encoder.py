"""The image encoder of SAM-Med3D: a plain vision transformer over 3-D patches, with adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import CropRule
from crossvox.networks.sam.adapter import Adapter
from crossvox.networks.sam.attention import Attention

FreezeForm = Literal["paper", "all_but_adapter", "none"]


@dataclass(frozen=True)
class ViTSize:
    """Everything that fixes the encoder's parameters; the defaults are the published ViT-B's.

    Attributes:
        channels_in: of the image.
        image: side of the crop that the position grid and the global tables are made for.
        patch: side of a patch in voxels; a token stands for one.
        embed: channels of a token, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: the perceptron's hidden channels, as a multiple of `embed`.
        window: side of the attention windows in tokens; 0 makes all blocks global.
        global_blocks: the blocks, from 0, that attend to all tokens.
        channels_out: of the neck.
        qkv_bias: whether queries, keys and values have one.
        norm_eps: of the blocks' layer norms.
        absolute_position: whether there is a position grid.
        relative_position: whether there are relative tables.
        textbook_rel_pos: the textbook's relative positions instead of SAM-Med3D's.
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
        """Tokens along each axis of the crop that the tables are made for."""
        return self.image // self.patch

    @property
    def title(self) -> str:
        """What to call it where it takes not every crop."""
        return "sam_med3d without textbook_rel_pos" if self.crop.cubic else "sam_med3d"

    @property
    def crop(self) -> CropRule:
        """The crops that the encoder takes."""
        everywhere = self.window == 0 or any(i < self.depth for i in self.global_blocks)
        cubic = everywhere and self.relative_position and not self.textbook_rel_pos
        return CropRule(self.patch, cubic)


class SamMed3DEncoder(nn.Module):
    """Image (B, C, X, Y, Z) → [image, the tokens after some blocks, the neck's result].

    With G = size / patch per axis, tokens are (B, embed, *G) and the neck's result is
    (B, channels_out, *G). Without adapters the parameters have the published names, less
    `image_encoder.`; position grid and tables keep the published size and are resampled to other
    crops. Source: Wang et al., SAM-Med3D, 2023.

    Args:
        size: what fixes the parameters.
        taps: after which blocks, counted from 1, tokens are given out.
        reduction: of the adapter in each block; 0 is no adapter.
    """

    def __init__(self, size: ViTSize, taps: tuple[int, ...] = (), reduction: int = 0) -> None:
        super().__init__()
        self.size, self.taps = size, taps
        self.channels = [size.channels_in, *(size.embed for _ in taps), size.channels_out]
        self.patch_embed = PatchEmbedding(size)
        if size.absolute_position:
            self.pos_embed = nn.Parameter(torch.zeros(1, *(3 * [size.grid]), size.embed))
        self.blocks = nn.ModuleList(Block(size, i, reduction) for i in range(size.depth))
        self.neck = nn.Sequential(
            nn.Conv3d(size.embed, size.channels_out, 1, bias=False),
            ChannelNorm(size.channels_out),
            nn.Conv3d(size.channels_out, size.channels_out, 3, padding=1, bias=False),
            ChannelNorm(size.channels_out),
        )
        self._initialise()

    def forward(self, x: Tensor) -> list[Tensor]:
        """The image itself, taps from the first, the neck's result.

        Raises:
            ValueError: if the size is no multiple of the patch, or not cubic where it has to be.
        """
        self.size.crop.check(x.shape[2:], self.size.title)
        features = [x]
        tokens = self.patch_embed(x)
        if self.size.absolute_position:
            tokens = tokens + self._positions(tokens.shape[1:4])
        for i, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            features += [tokens.movedim(-1, 1)] * self.taps.count(i)
        return [*features, self.neck(tokens.movedim(-1, 1))]

    def freeze(self, form: FreezeForm) -> None:
        """Choose what is trained.

        Args:
            form: "paper" keeps the patch embedding, the position grid and the attention with its
                relative tables (Zhou et al., MICCAI 2024, figure 1 b, with the layer norms and
                perceptrons taken as trained), "all_but_adapter" all but the adapters, "none"
                nothing.
        """
        for name, parameter in self.named_parameters():
            fixed = {
                "none": False,
                "paper": name.startswith(("pos_embed", "patch_embed.")) or ".attn." in name,
                "all_but_adapter": ".adapter." not in name,
            }
            parameter.requires_grad_(not fixed[form])

    def published_names(self) -> list[str]:
        """The parameters that SAM-Med3D's files have too: all but the adapters."""
        return [name for name in self.state_dict() if ".adapter." not in name]

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        if self.pos_embed.shape[1:4] == grid:
            return self.pos_embed
        channels_first = self.pos_embed.movedim(-1, 1)
        return F.interpolate(channels_first, tuple(grid), mode="trilinear").movedim(1, -1)

    def _initialise(self) -> None:
        """Weights for training from scratch; tables start at zero, as adapters do."""
        if self.size.absolute_position:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Block(nn.Module):
    """Attention, then a perceptron, each on layer-normed tokens and added to them; then an adapter.

    Tokens (B, D, H, W, C) → the same shape.
    """

    def __init__(self, size: ViTSize, index: int, reduction: int = 0) -> None:
        super().__init__()
        window = 0 if index in size.global_blocks else size.window
        side = window or size.grid
        self.norm1 = nn.LayerNorm(size.embed, eps=size.norm_eps)
        self.attn = Attention(
            size.embed,
            size.heads,
            (side, side, side) if size.relative_position else None,
            window=window,
            qkv_bias=size.qkv_bias,
            textbook=size.textbook_rel_pos,
        )
        self.norm2 = nn.LayerNorm(size.embed, eps=size.norm_eps)
        self.mlp = Perceptron(size.embed, int(size.embed * size.mlp_ratio))
        self.adapter = Adapter(size.embed, reduction) if reduction else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        x = x + self.attn(self.norm1(x))
        return self.adapter(x + self.mlp(self.norm2(x)))


class Perceptron(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        return self.lin2(F.gelu(self.lin1(x)))


class PatchEmbedding(nn.Module):
    """Image (B, C, X, Y, Z) → tokens (B, D, H, W, embed), one per patch."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.proj = nn.Conv3d(size.channels_in, size.embed, size.patch, stride=size.patch)

    def forward(self, x: Tensor) -> Tensor:
        """Project each patch."""
        return self.proj(x).movedim(1, -1)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel: (B, C, X, Y, Z) → the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Biased variance; the epsilon is the published one, whatever the blocks have."""
        channels = self.weight.shape
        return F.layer_norm(x.movedim(1, -1), channels, self.weight, self.bias, 1e-6).movedim(-1, 1)
