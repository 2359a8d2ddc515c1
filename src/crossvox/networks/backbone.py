"""The interface of backbones: factories of encoders and decoders."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossvox.batch import Triple


class Encoder(Protocol):
    """(B, 1, X, Y, Z) → features, shallow to deep; level i has `channels[i]` channels.

    It looks at shapes alone, at no values, so that `deepest_grid` can ask it for them.
    """

    channels: list[int]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Features of every level."""
        ...


class Backbone(Protocol):
    """A factory of the encoders and decoders that a method is put together from.

    It is made from (task, *, own options with types and defaults), and refuses with a
    `ValueError` a task that it cannot serve.

    A backbone with strides of its own also has
        crop(**options) -> CropRule: a static method; the crops that it takes with these options.

    One whose published weights can be loaded also has
        published: the key of its model in `crossvox.networks.pretrained.published.PUBLISHED`;
        pretrained: a keyword of the constructor, default False: weights will be loaded. It is no
            option of the command line; "auto" options may depend on it.
    and its encoder and decoder have
        published_names() -> list[str]: the names in their state dict that the publication also
            has, by the same name there. `crossvox.networks.pretrained` fills these; a module
            without this method, or with an empty list, starts from its own random weights.
    """

    def encoder(self) -> nn.Module:
        """A new `Encoder`: forward(x) → list of features, and the attribute `channels`."""
        ...

    def decoder(self, n_classes: int) -> nn.Module:
        """A new decoder: forward(features) → logits (B, n_classes, X, Y, Z) at the input's size."""
        ...


@torch.no_grad()
def deepest_grid(encoder: nn.Module, patch: Triple) -> Triple:
    """The size of an `Encoder`'s deepest feature for a crop, worked out without its numbers."""
    shapes = {name: tensor.to("meta") for name, tensor in encoder.state_dict().items()}
    features = functional_call(encoder, shapes, torch.empty(1, 1, *patch, device="meta"))
    x, y, z = features[-1].shape[2:]
    return x, y, z
