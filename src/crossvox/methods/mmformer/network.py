"""mmFormer: transformers within and across modalities, any of which may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossvox.batch import Task
from crossvox.methods.mmformer.blocks import (
    ConvEncoder,
    TokenBlock,
    UpPath,
    fusion_block,
    resize,
)
from crossvox.networks.blocks import Pointwise
from crossvox.networks.strides import check_size, total_stride


@dataclass(frozen=True)
class MMFormerSize:
    """How large an mmFormer is.

    Attributes:
        width: channels at the image's size; level i has width · 2^i.
        embed: channels of a token.
        heads: of attention.
        mlp_ratio: channels inside a transformer's perceptron, over `embed`.
        dropout: in the transformers.
    """

    width: int = 8
    embed: int = 128
    heads: int = 8
    mlp_ratio: int = 8
    dropout: float = 0.0


class MMFormer(nn.Module):
    """An encoder per modality, attention within and across them, and one decoder for all.

    Every position of the deepest level is a token. A transformer block looks at the tokens of one
    modality, another at those of all that are present. Source: Zhang et al., mmFormer, MICCAI
    2022.

    Args:
        task: modalities, classes, and the levels' strides and kernels.
        size: channels and the like.

    Raises:
        ValueError: if there is a single level, or the patch is no multiple of the strides or one
            voxel at the bottom.
    """

    def __init__(self, task: Task, size: MMFormerSize) -> None:
        super().__init__()
        if len(task.strides) < 2:
            raise ValueError(
                "mmformer has networks of its own, whose levels are planned with backbone unet "
                "and budget.levels of 2 at least; this task has a single level"
            )
        self.factor = total_stride(task.strides)
        check_size(task.patch, self.factor)
        n, kernels = len(task.modalities), task.kernels
        channels = [size.width * 2**i for i in range(len(task.strides))]
        self.encoders = nn.ModuleList(
            ConvEncoder(channels, task.strides, kernels) for _ in range(n)
        )
        self.embed = nn.ModuleList(Pointwise(channels[-1], size.embed) for _ in range(n))
        grid = [p // f for p, f in zip(task.patch, self.factor, strict=True)]
        self.positions = nn.ParameterList(torch.zeros(1, size.embed, *grid) for _ in range(n))
        block = size.embed, size.heads, size.mlp_ratio, size.dropout
        self.within = nn.ModuleList(TokenBlock(*block) for _ in range(n))
        self.across = TokenBlock(*block)
        self.leave = Pointwise(n * size.embed, n * channels[-1])
        # The fusion's norm would subtract its bias again.
        self.leave.register_parameter("bias", None)
        self.fusions = nn.ModuleList(
            fusion_block(c, n, kernel) for c, kernel in zip(channels, kernels, strict=True)
        )
        self.up = UpPath(channels, kernels)
        self.heads = nn.ModuleList(Pointwise(c, task.n_classes) for c in channels)
        self.separate_up = UpPath(channels, kernels)
        self.separate_head = Pointwise(channels[0], task.n_classes)

    def encode(self, modality: int, images: Tensor) -> list[Tensor]:
        """Convolutional features of one modality's images (B, 1, X, Y, Z), shallow to deep."""
        check_size(images.shape[2:], self.factor)
        return self.encoders[modality](images)

    def separate(self, features: list[Tensor]) -> Tensor:
        """Logits (B, K + 1, x, y, z) at level 0, from one modality's own convolutions alone."""
        return self.separate_head(self.separate_up(features)[0]).contiguous()

    def fuse(
        self, features: Mapping[int, list[Tensor]], present: Tensor, placed: Tensor
    ) -> list[Tensor]:
        """Logits of every level, the finest first, from what is present.

        Args:
            features: modality → what `encode` made of it; finite also in rows where it is absent.
            present: (B, M) bool, whose tokens are attended to; at least one in each row.
            placed: (B, M) bool, of those present, whose features go to the decoder, voxel by
                voxel.

        Returns:
            Per level (B, K + 1, x, y, z).
        """
        tokens = self._attend(features, present)
        levels = []
        for level, fusion in enumerate(self.fusions[:-1]):
            skips = {m: f[level] for m, f in features.items()}
            levels.append(fusion(self._side_by_side(skips, placed)))
        levels.append(self.fusions[-1](self.leave(self._side_by_side(tokens, placed))))
        return [head(x).contiguous() for head, x in zip(self.heads, self.up(levels), strict=True)]

    def _attend(self, features: Mapping[int, list[Tensor]], present: Tensor) -> dict[int, Tensor]:
        """Tokens (B, E, x, y, z) of each modality after both transformers."""
        given = sorted(features)
        deepest = {m: features[m][-1] for m in given}
        grid = deepest[given[0]].shape[2:]
        positions = {m: _sequence(resize(self.positions[m], grid)) for m in given}
        own = [self.within[m](_sequence(self.embed[m](deepest[m])), positions[m]) for m in given]
        keys = present[:, given].repeat_interleave(grid.numel(), dim=1)
        where = torch.cat([positions[m] for m in given], dim=1)
        # One modality after the other, along the sequence; taken apart in the same way.
        mixed = self.across(torch.cat(own, dim=1), where, keys if len(given) > 1 else None)
        parts = mixed.split(grid.numel(), dim=1)
        return {
            m: part.transpose(1, 2).unflatten(2, grid) for m, part in zip(given, parts, strict=True)
        }

    def _side_by_side(self, features: Mapping[int, Tensor], placed: Tensor) -> Tensor:
        """(B, M·C, …): every modality in channels of its own, zero where it is not placed."""
        like = next(iter(features.values()))
        slots = []
        for m in range(len(self.encoders)):
            there = placed[:, m].view(-1, 1, 1, 1, 1)
            slots.append(features[m] * there if m in features else torch.zeros_like(like))
        return torch.cat(slots, dim=1)


def _sequence(x: Tensor) -> Tensor:
    """(B, E, x, y, z) → (B, N, E)."""
    return x.flatten(2).transpose(1, 2)
