"""The SwinUNETR of the CLIP-Driven Universal Model (Liu et al., ICCV 2023)."""

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
"""Offsets of the eight sub-grids that patch merging concatenates, in the original's order.

Two are repeated and two are missing. MONAI has corrected this since, but the published weights were
trained with it.
"""


class UniversalSwinUNETRBackbone:
    """The Universal Model's SwinUNETR, 62 million parameters; takes the published weights.

    MONAI's SwinUNETR with another order in patch merging and a head of our own.
    Sources: Hatamizadeh et al., Swin UNETR, BrainLes 2021; Liu et al., CLIP-Driven Universal
    Model, ICCV 2023.

    Args:
        task: gives the patch.
        feature_size: channels at the image's size, a multiple of 12; 48 in the publication,
            smaller sizes cannot take its weights.
        pretrained: whether published weights will be loaded; changes nothing here.

    Raises:
        ValueError: the patch does not fit the strides, or `feature_size` is no multiple of 12.
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
        """Return the rule: multiples of 32, whatever the options."""
        return CropRule(multiple=32)

    def encoder(self) -> SwinEncoder:
        """Return a new encoder with random weights."""
        return SwinEncoder(self.feature_size)

    def decoder(self, n_classes: int) -> SwinDecoder:
        """Return a new up path to `n_classes` logits, background included, with random weights."""
        return SwinDecoder(self.feature_size, n_classes)


class SwinEncoder(nn.Module):
    """(B, 1, X, Y, Z) → features of f, f, 2f, 4f, 8f and 16f channels at halving resolutions.

    All but the fifth pass through a block of convolutions.

    Args:
        feature_size: f.

    Raises:
        ValueError: the size does not fit the strides.
    """

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        f = feature_size
        self.channels = [f, f, 2 * f, 4 * f, 8 * f, 16 * f]
        # Its constructor reads values of a tensor, which the device "meta" does not have.
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
        """Return the features of all levels."""
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
        """Return all parameters' names; the buffers are row numbers that follow from the window."""
        return [name for name, _ in self.named_parameters()]


class SwinDecoder(nn.Module):
    """The encoder's features → logits (B, n_classes, X, Y, Z) at the input's size.

    Args:
        feature_size: the encoder's.
        n_classes: logits per voxel; only the head is not published.
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
        """Return the logits."""
        x = features[-1]
        ups = (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        for up, skip in zip(ups, features[-2::-1], strict=True):
            x = up(x, skip)
        return self.head(x).contiguous()

    def published_names(self) -> list[str]:
        """Return all names but the head's."""
        return [name for name in self.state_dict() if not name.startswith("head.")]


class _Merging(PatchMerging):
    """Tokens (B, D, H, W, C), even sizes → (B, D/2, H/2, W/2, 2C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the original's sub-grids, normalise and project them."""
        parts = [x[:, i::2, j::2, k::2] for i, j, k in SUB_GRIDS]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


def _block(inputs: int, outputs: int) -> UnetrBasicBlock:
    return UnetrBasicBlock(3, inputs, outputs, 3, 1, "instance", res_block=True)


def _up(inputs: int, outputs: int) -> UnetrUpBlock:
    return UnetrUpBlock(3, inputs, outputs, 3, 2, "instance", res_block=True)
