"""What every backbone offers, and the backbones there are."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from crossvox.networks.unet import UNetBackbone

__all__ = ["BACKBONES", "Backbone", "Encoder"]


class Encoder(Protocol):
    """(B, 1, X, Y, Z) → features, shallow to deep; level i has `channels[i]` channels."""

    channels: list[int]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Features of every level."""
        ...


class Backbone(Protocol):
    """A factory of the encoders and decoders that a method is put together from."""

    def encoder(self) -> nn.Module:
        """A new `Encoder`: forward(x) → list of features, and the attribute `channels`."""
        ...

    def decoder(self, n_classes: int) -> nn.Module:
        """A new decoder: forward(features) → logits (B, n_classes, X, Y, Z) at the input's size."""
        ...


BACKBONES: dict[str, type] = {"unet": UNetBackbone}
