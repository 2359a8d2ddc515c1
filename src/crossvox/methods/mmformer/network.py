"""The network of mmFormer: transformers within and across modalities, any of which may be missing.

Source: Zhang et al., mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning
of Brain Tumor Segmentation, MICCAI 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Task, Triple
from crossvox.networks.backbone import check_size, total_stride
from crossvox.networks.blocks import InstanceNorm, Pointwise, conv, fast_layout

SLOPE = 0.2
POINT: Triple = (1, 1, 1)


@dataclass(frozen=True)
class MMFormerSize:
    """Sizes of an mmFormer.

    Attributes:
        width: channels at the image's size; level i has width · 2^i.
        embed: channels of a token.
        heads: attention heads.
        mlp_ratio: hidden channels of a transformer's perceptron, as a multiple of `embed`.
        dropout: dropout probability in the transformers.
    """

    width: int = 8
    embed: int = 128
    heads: int = 8
    mlp_ratio: int = 8
    dropout: float = 0.0


class MMFormerNet(nn.Module):
    """An encoder per modality, attention within and across modalities, and one decoder for all.

    Every position of the deepest level is a token. The intra-modal transformer of a modality
    attends to its own tokens, the inter-modal one to those of all modalities present.

    Args:
        task: modalities, classes, and the levels' strides and kernels.
        size: channels and the like.

    Raises:
        ValueError: the task has a single level, or its patch does not fit the strides.
    """

    def __init__(self, task: Task, size: MMFormerSize) -> None:
        super().__init__()
        if len(task.strides) < 2:
            raise ValueError(
                "mmformer has networks of its own with two levels at least; this task has a single "
                "one: raise budget.levels"
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
        # The norm at the start of the fusion block would subtract a bias again.
        self.leave.register_parameter("bias", None)
        self.fusions = nn.ModuleList(
            fusion_block(c, n, kernel) for c, kernel in zip(channels, kernels, strict=True)
        )
        self.up = UpPath(channels, kernels)
        self.heads = nn.ModuleList(Pointwise(c, task.n_classes) for c in channels)
        self.separate_up = UpPath(channels, kernels)
        self.separate_head = Pointwise(channels[0], task.n_classes)

    def encode(self, modality: int, images: Tensor) -> list[Tensor]:
        """Return features of all levels, shallow to deep, of one modality's (B, 1, X, Y, Z)."""
        check_size(images.shape[2:], self.factor)
        return self.encoders[modality](images)

    def separate(self, features: list[Tensor]) -> Tensor:
        """Return logits (B, K + 1, x, y, z) at level 0 from one modality's convolutions alone."""
        return self.separate_head(self.separate_up(features)[0]).contiguous()

    def fuse(
        self, features: Mapping[int, list[Tensor]], present: Tensor, decoded: Tensor
    ) -> list[Tensor]:
        """Return the logits of every level, the finest first.

        Args:
            features: modality → what `encode` returned; finite also in rows where it is absent.
            present: (B, M) bool, the modalities whose tokens are attended to; at least one in
                each row.
            decoded: (B, M) bool, those of the present ones whose features reach the decoder.

        Returns:
            Per level (B, K + 1, x, y, z).
        """
        tokens = self._attend(features, present)
        levels = []
        for level, fusion in enumerate(self.fusions[:-1]):
            skips = {m: f[level] for m, f in features.items()}
            levels.append(fusion(self._side_by_side(skips, decoded)))
        levels.append(self.fusions[-1](self.leave(self._side_by_side(tokens, decoded))))
        return [head(x).contiguous() for head, x in zip(self.heads, self.up(levels), strict=True)]

    def _attend(self, features: Mapping[int, list[Tensor]], present: Tensor) -> dict[int, Tensor]:
        """Return each modality's tokens (B, E, x, y, z) after both transformers."""
        given = sorted(features)
        deepest = {m: features[m][-1] for m in given}
        grid = deepest[given[0]].shape[2:]
        positions = {m: _sequence(resize(self.positions[m], grid)) for m in given}
        own = [self.within[m](_sequence(self.embed[m](deepest[m])), positions[m]) for m in given]
        columns = torch.stack([present[:, m] for m in given], dim=1)
        keys = columns.repeat_interleave(grid.numel(), dim=1)
        where = torch.cat([positions[m] for m in given], dim=1)
        # The modalities follow each other in one sequence, which is split in the same order.
        mixed = self.across(torch.cat(own, dim=1), where, keys if len(given) > 1 else None)
        parts = mixed.split(grid.numel(), dim=1)
        return {
            m: part.transpose(1, 2).unflatten(2, grid) for m, part in zip(given, parts, strict=True)
        }

    def _side_by_side(self, features: Mapping[int, Tensor], decoded: Tensor) -> Tensor:
        """Concatenate the modalities to (B, M·C, …), with zeros for those not decoded."""
        like = next(iter(features.values()))
        slots = []
        for m in range(len(self.encoders)):
            rows = decoded[:, m].view(-1, 1, 1, 1, 1)
            slots.append(features[m] * rows if m in features else torch.zeros_like(like))
        return torch.cat(slots, dim=1)


class ConvEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features per level, shallow to deep, level i of `channels[i]` channels.

    A level begins with a convolution of its stride; two more are added to its result: x + c(c(x)).

    Args:
        channels: per level.
        strides: per level.
        kernels: per level.
    """

    def __init__(
        self, channels: list[int], strides: Sequence[Triple], kernels: Sequence[Triple]
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        # The image itself is not normalised before its first convolution.
        self.enter = nn.ModuleList([_unbiased(1, channels[0], kernels[0], strides[0])])
        for i in range(1, len(channels)):
            entrance = norm_act_conv(channels[i - 1], channels[i], kernels[i], strides[i])
            self.enter.append(entrance)
        self.refine = nn.ModuleList(
            nn.Sequential(norm_act_conv(c, c, kernel), norm_act_conv(c, c, kernel))
            for c, kernel in zip(channels, kernels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of all levels."""
        x = fast_layout(x)
        features = []
        for enter, refine in zip(self.enter, self.refine, strict=True):
            x = enter(x)
            x = x + refine(x)
            features.append(x)
        return features


class UpPath(nn.Module):
    """Features, shallow to deep → decoded features of every level, shallow to deep.

    The deepest is passed on unchanged. Each step towards the image is a convolution, trilinear
    resizing, concatenation with the skip, a convolution and a 1³ convolution. The original
    resizes first, which makes the first convolution eight times as expensive.

    Args:
        channels: per level.
        kernels: per level.
    """

    def __init__(self, channels: list[int], kernels: Sequence[Triple]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList()
        self.join = nn.ModuleList()
        for i, (width, deeper) in enumerate(pairwise(channels)):
            kernel = kernels[i]
            self.reduce.append(norm_act_conv(deeper, width, kernels[i + 1]))
            self.join.append(
                nn.Sequential(
                    norm_act_conv(2 * width, width, kernel), norm_act_conv(width, width, POINT)
                )
            )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return the decoded features of all levels."""
        decoded = [features[-1]]
        for level in reversed(range(len(self.reduce))):
            skip = features[level]
            x = resize(self.reduce[level](decoded[0]), skip.shape[2:])
            decoded.insert(0, self.join[level](torch.cat([x, skip], dim=1)))
        return decoded


class TokenBlock(nn.Module):
    """A pre-norm transformer block that adds position embeddings to its input.

    Args:
        embed: E, channels of a token.
        heads: attention heads.
        mlp_ratio: hidden channels of the perceptron, as a multiple of E.
        dropout: dropout probability, in attention and after each layer.
    """

    def __init__(self, embed: int, heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(embed)
        self.qkv = nn.Linear(embed, 3 * embed, bias=False)
        self.project = nn.Sequential(nn.Linear(embed, embed), nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(embed),
            nn.Linear(embed, mlp_ratio * embed),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_ratio * embed, embed),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Transform tokens.

        Args:
            tokens: (B, N, E).
            positions: (1, N, E).
            keys: (B, N) bool, the tokens to attend to, at least one in each row; None = all.

        Returns:
            (B, N, E).
        """
        x = tokens + positions
        x = x + self.project(self._attend(self.norm(x), keys))
        return x + self.perceptron(x)

    def _attend(self, x: Tensor, keys: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if keys is None else keys[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return out.transpose(1, 2).flatten(2)


def fusion_block(channels: int, modalities: int, kernel: Triple) -> nn.Sequential:
    """Build the fusion of concatenated modalities: (B, M·C, X, Y, Z) → (B, C, X, Y, Z)."""
    return nn.Sequential(
        norm_act_conv(modalities * channels, channels, POINT),
        norm_act_conv(channels, channels, kernel),
        norm_act_conv(channels, channels, POINT),
    )


def norm_act_conv(
    inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    """Build instance norm → leaky ReLU → convolution."""
    convolution = _unbiased(inputs, outputs, kernel, stride)
    return nn.Sequential(InstanceNorm(inputs), nn.LeakyReLU(SLOPE, inplace=True), convolution)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, X, Y, Z) to another size by trilinear interpolation."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode="trilinear", align_corners=False)


def _unbiased(inputs: int, outputs: int, kernel: Triple, stride: Triple) -> nn.Conv3d:
    """Build a convolution without bias, which the next block's norm would subtract again."""
    made = conv(inputs, outputs, kernel, stride)
    made.register_parameter("bias", None)
    return made


def _sequence(x: Tensor) -> Tensor:
    """(B, E, x, y, z) → (B, N, E)."""
    return x.flatten(2).transpose(1, 2)
