"""The SwinUNETR of the CLIP-Driven Universal Model, whose published weights it takes."""

from __future__ import annotations

import torch
from monai.networks.blocks import UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets.swin_unetr import PatchMerging, SwinTransformer
from torch import Tensor, nn

from crossvox.batch import CropRule, Task
from crossvox.networks.blocks import Pointwise

SUB_GRIDS = (
    (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1),
)  # fmt: skip
"""Offsets of the eight sub-grids that a merging of patches concatenates, in the original's order.

Two come twice and two are missing, which MONAI has put right since; the published weights were
trained with this.
"""


class UniversalSwinUNETRBackbone:
    """The Universal Model's SwinUNETR (62 million parameters); takes its published weights.

    MONAI's SwinUNETR but for the order in which it merges patches, with a head of our own.
    Sources: Hatamizadeh et al., Swin UNETR, BrainLes 2021; Liu et al., CLIP-Driven Universal
    Model, ICCV 2023.

    Args:
        task: gives the patch.
        feature_size: channels at the image's size, a multiple of 12: 48 in the publication; less
            for small machines, without its weights.
        pretrained: published weights will be loaded; changes nothing here.

    Raises:
        ValueError: the patch is no multiple of 32 or a single voxel at the bottom, or
            `feature_size` is no multiple of 12.
    """

    published = "universal_swinunetr"

    def __init__(self, task: Task, *, feature_size: int = 48, pretrained: bool = False) -> None:
        if feature_size < 1 or feature_size % 12:
            near = max(12, round(feature_size / 12) * 12)
            raise ValueError(f"feature_size {feature_size} is no multiple of 12; nearest is {near}")
        self.crop().check(task.patch, "universal_swinunetr")
        self.feature_size = feature_size

    @staticmethod
    def crop(**options: object) -> CropRule:
        """Any multiples of 32; no option changes that."""
        return CropRule(multiple=32)

    def encoder(self) -> SwinEncoder:
        """A new encoder with its own random weights."""
        return SwinEncoder(self.feature_size)

    def decoder(self, n_classes: int) -> SwinDecoder:
        """A new up path to `n_classes` logits (background included), own random weights."""
        return SwinDecoder(self.feature_size, n_classes)


class SwinEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features of f, f, 2f, 4f, 8f and 16f channels, each half as fine.

    All but the fifth have passed through a block of convolutions.

    Args:
        feature_size: f.

    Raises:
        ValueError: a size is no multiple of 32 or a single voxel at the bottom.
    """

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        f = feature_size
        self.channels = [f, f, 2 * f, 4 * f, 8 * f, 16 * f]
        # It reads numbers from a tensor to set itself up, so that it cannot be made without any.
        with torch.device("cpu"):
            self.swinViT = SwinTransformer(
                in_chans=1,
                embed_dim=f,
                window_size=(7, 7, 7),
                patch_size=(2, 2, 2),
                depths=(2, 2, 2, 2),
                num_heads=(3, 6, 12, 24),
                qkv_bias=True,
                spatial_dims=3,
                downsample=_Merging,
            )
        self.encoder1 = _block(1, f)
        self.encoder2 = _block(f, f)
        self.encoder3 = _block(2 * f, 2 * f)
        self.encoder4 = _block(4 * f, 4 * f)
        self.encoder10 = _block(16 * f, 16 * f)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of every level."""
        UniversalSwinUNETRBackbone.crop().check(x.shape[2:], "universal_swinunetr")
        hidden = self.swinViT(x, normalize=True)
        return [
            self.encoder1(x),
            self.encoder2(hidden[0]),
            self.encoder3(hidden[1]),
            self.encoder4(hidden[2]),
            hidden[3],
            self.encoder10(hidden[4]),
        ]

    def published_names(self) -> list[str]:
        """All parameters; the buffers are numbers of table rows, which the window fixes."""
        return [name for name, _ in self.named_parameters()]


class SwinDecoder(nn.Module):
    """The encoder's features → logits (B, n_classes, X, Y, Z) at the input's size.

    Args:
        feature_size: the encoder's.
        n_classes: logits per voxel; the head is ours, the rest published.
    """

    def __init__(self, feature_size: int, n_classes: int) -> None:
        super().__init__()
        f = feature_size
        self.decoder5 = _up(16 * f, 8 * f)
        self.decoder4 = _up(8 * f, 4 * f)
        self.decoder3 = _up(4 * f, 2 * f)
        self.decoder2 = _up(2 * f, f)
        self.decoder1 = _up(f, f)
        self.head = Pointwise(f, n_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits at the input's size."""
        x = features[-1]
        ups = (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        for up, skip in zip(ups, features[-2::-1], strict=True):
            x = up(x, skip)
        return self.head(x).contiguous()

    def published_names(self) -> list[str]:
        """All but the head."""
        return [name for name in self.state_dict() if not name.startswith("head.")]


class _Merging(PatchMerging):
    """Tokens (B, D, H, W, C), even sizes → (B, D/2, H/2, W/2, 2C)."""

    def forward(self, x: Tensor) -> Tensor:
        """The original's sub-grids side by side, normed and mixed."""
        parts = [x[:, i::2, j::2, k::2] for i, j, k in SUB_GRIDS]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


def _block(inputs: int, outputs: int) -> UnetrBasicBlock:
    return UnetrBasicBlock(3, inputs, outputs, 3, 1, "instance", res_block=True)


def _up(inputs: int, outputs: int) -> UnetrUpBlock:
    return UnetrUpBlock(3, inputs, outputs, 3, 2, "instance", res_block=True)
