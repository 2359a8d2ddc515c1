"""The U-Net of the CLIP-Driven Universal Model (Liu et al., ICCV 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import CropRule, Task
from crossvox.errors import check_choice, require
from crossvox.networks.blocks import Pointwise, fast_layout, norm_rows
from crossvox.networks.checkpointing import run

NormKind = Literal["batch", "instance", "running"]
NormOption = Literal["auto", NormKind]


class UniversalUNetBackbone:
    """The Universal Model's U-Net, 19 million parameters; takes the published weights.

    Four levels of 2, 4, 8 and 16 times `width` channels, with two convolutions each. Skips are
    taken before max-pooling. Source: Liu et al., CLIP-Driven Universal Model, ICCV 2023.

    Args:
        task: gives the patch.
        width: 32 in the publication; smaller widths cannot take its weights.
        norm: "batch" (statistics of the given crops, also at inference, as published), "running"
            (batch norm with running statistics at inference), "instance", or "auto": "batch" with
            published weights, "instance" without.
        checkpoint: keep only the stages' inputs for the backward pass and compute the stages
            again there: less memory, a third more time.
        pretrained: whether published weights will be loaded.

    Raises:
        ValueError: an option is unknown, or the patch does not fit the strides.
    """

    published = "universal_unet"

    def __init__(
        self,
        task: Task,
        *,
        width: int = 32,
        norm: NormOption = "auto",
        checkpoint: bool = False,
        pretrained: bool = False,
    ) -> None:
        require("backbone.width", width, 1)
        check_choice("norm", norm, NormOption)
        if norm == "auto":
            norm = "batch" if pretrained else "instance"
        self.crop().check(task.patch, "universal_unet")
        self.width, self.norm, self.checkpoint = width, norm, checkpoint

    @staticmethod
    def crop(**options: object) -> CropRule:
        """Return the rule: multiples of 8, whatever the options."""
        return CropRule(multiple=8)

    def encoder(self) -> UniversalEncoder:
        """Return a new down path with random weights."""
        return UniversalEncoder(self.width, self.norm, checkpoint=self.checkpoint)

    def decoder(self, n_classes: int) -> UniversalDecoder:
        """Return a new up path to `n_classes` logits, background included, with random weights."""
        return UniversalDecoder(self.width, self.norm, n_classes, checkpoint=self.checkpoint)


class UniversalEncoder(nn.Module):
    """(B, 1, X, Y, Z) → skips of 2w, 4w and 8w channels and the deepest feature of 16w.

    Args:
        width: w.
        norm: see `UniversalUNetBackbone`.
        checkpoint: likewise.

    Raises:
        ValueError: the size does not fit the strides.
    """

    def __init__(self, width: int, norm: NormKind, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.channels = [2 * width, 4 * width, 8 * width, 16 * width]
        self.down_tr64 = _Stage(1, width, 2 * width, norm)
        self.down_tr128 = _Stage(2 * width, 2 * width, 4 * width, norm)
        self.down_tr256 = _Stage(4 * width, 4 * width, 8 * width, norm)
        self.down_tr512 = _Stage(8 * width, 8 * width, 16 * width, norm)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of all levels."""
        UniversalUNetBackbone.crop().check(x.shape[2:], "universal_unet")
        features = [run(self.down_tr64, fast_layout(x), enabled=self.checkpoint)]
        for stage in (self.down_tr128, self.down_tr256, self.down_tr512):
            pooled = F.max_pool3d(features[-1], 2)
            features.append(run(stage, pooled, enabled=self.checkpoint))
        return features

    def published_names(self) -> list[str]:
        """Return all names: all of it is published."""
        return list(self.state_dict())


class UniversalDecoder(nn.Module):
    """The encoder's features → logits (B, n_classes, X, Y, Z) at the input's size.

    Args:
        width: the encoder's.
        norm: see `UniversalUNetBackbone`.
        n_classes: logits per voxel; only the head is not published.
        checkpoint: see `UniversalUNetBackbone`.
    """

    def __init__(
        self, width: int, norm: NormKind, n_classes: int, *, checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.up_tr256 = _Up(16 * width, 8 * width, norm)
        self.up_tr128 = _Up(8 * width, 4 * width, norm)
        self.up_tr64 = _Up(4 * width, 2 * width, norm)
        self.head = Pointwise(2 * width, n_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits."""
        x = features[-1]
        for up, skip in zip(
            (self.up_tr256, self.up_tr128, self.up_tr64), features[-2::-1], strict=True
        ):
            x = run(up, x, skip, enabled=self.checkpoint)
        return self.head(x).contiguous()

    def published_names(self) -> list[str]:
        """Return all names but the head's."""
        return [name for name in self.state_dict() if not name.startswith("head.")]


class _Stage(nn.Module):
    """Two convolutions of 3³, each followed by norm and ReLU: inputs → between → outputs."""

    def __init__(self, inputs: int, between: int, outputs: int, norm: NormKind) -> None:
        super().__init__()
        self.ops = nn.Sequential(_Unit(inputs, between, norm), _Unit(between, outputs, norm))

    def forward(self, x: Tensor) -> Tensor:
        """Apply both units."""
        return self.ops(x)


class _Up(nn.Module):
    """Twice the size by a transposed convolution, then a stage over [upsampled, skip]."""

    def __init__(self, inputs: int, outputs: int, norm: NormKind) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(inputs, inputs, 2, 2)
        self.ops = nn.Sequential(
            _Unit(inputs + outputs, outputs, norm), _Unit(outputs, outputs, norm)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, …) and the skip (B, outputs, 2·…) → (B, outputs, 2·…)."""
        return self.ops(torch.cat([self.up_conv(x), skip], dim=1))


class _Unit(nn.Module):
    """Convolution of 3³ → norm → ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: NormKind) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1)
        # The norm subtracts the bias again. Its gradient would be rounding errors, which Adam
        # blows up to whole steps. The published bias only shifts the running means.
        assert self.conv1.bias is not None
        nn.init.zeros_(self.conv1.bias).requires_grad_(False)
        self.bn1 = _Norm(outputs, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, …) → (B, outputs, …)."""
        return F.relu(self.bn1(self.conv1(x)), inplace=True)


class _Norm(nn.BatchNorm3d):
    """Batch norm in three forms; (B, C, X, Y, Z) → the same shape.

    The published networks use the statistics of the given batch, in evaluation too. Their
    predictions depend on the rest of the batch, and each forward pass moves the running
    statistics. "batch" uses the batch's statistics in training only. In evaluation it normalises
    each row by itself and moves no statistics, so that a prediction neither depends on another
    subject nor changes the model.
    """

    def __init__(self, channels: int, form: NormKind) -> None:
        super().__init__(channels)
        self.form = form

    def forward(self, input: Tensor) -> Tensor:
        """Normalise according to form and mode."""
        if self.form == "running":
            return super().forward(input)
        if self.form == "batch" and self.training:
            return F.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=True,
                momentum=self.momentum or 0.0,
            )  # as published, the number of batches is not counted
        return norm_rows(input, self.weight, self.bias, self.eps)
