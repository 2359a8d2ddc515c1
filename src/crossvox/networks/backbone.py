"""The interface of backbones: factories of encoders and decoders, and checks for their crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossvox.batch import Triple


class Encoder(Protocol):
    """(B, 1, X, Y, Z) → features, shallow to deep, level i of `channels[i]` channels.

    `forward` may depend on the shape of its input but not on values, so that `deepest_grid` can
    run it on the device "meta".
    """

    channels: list[int]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return the features of all levels."""
        ...


@runtime_checkable
class DeepDecoder(Protocol):
    """A decoder whose levels can be supervised: `decoder(f)` is `close(rise(f)[-1])`."""

    channels: list[int]
    """Channels of the features of all levels, deep to shallow."""

    def rise(self, features: list[Tensor]) -> list[Tensor]:
        """Return the features of all levels, deep to shallow; the deepest are the encoder's."""
        ...

    def close(self, x: Tensor) -> Tensor:
        """Return the logits of the shallowest features."""
        ...


class Backbone(Protocol):
    """A factory of the encoders and decoders that a method is made of.

    The constructor takes `(task, *, options)`, where the options have types and defaults, and
    raises `ValueError` for a task that it cannot serve.

    A backbone with fixed strides also has
        crop(**options) -> CropRule: a static method; the crop sizes it accepts with these options.

    A backbone whose published weights can be loaded also has
        published: its model's key in `crossvox.networks.pretrained.published.PUBLISHED`;
        pretrained: a keyword of the constructor, default False: weights will be loaded. It is not
            an option of the command line; options with the value "auto" may depend on it.
    Its encoder and decoder then have
        published_names() -> list[str]: the names in their state dict that the publication also
            has. `crossvox.networks.pretrained` fills these; a module without this method, or with
            an empty list, keeps its random weights.

    A decoder that can be supervised on all levels is a `DeepDecoder`.
    """

    def encoder(self) -> nn.Module:
        """Return a new `Encoder`."""
        ...

    def decoder(self, n_classes: int) -> nn.Module:
        """Return a new decoder: features → logits (B, n_classes, X, Y, Z) at the input's size."""
        ...


@torch.no_grad()
def deepest_grid(encoder: nn.Module, patch: Triple) -> Triple:
    """Return the size of an `Encoder`'s deepest feature for a crop, without computing values."""
    shapes = {name: tensor.to("meta") for name, tensor in encoder.state_dict().items()}
    features = functional_call(encoder, shapes, torch.empty(1, 1, *patch, device="meta"))
    x, y, z = features[-1].shape[2:]
    return x, y, z


def total_stride(strides: Sequence[Triple]) -> Triple:
    """Return the product of the levels' strides: voxels of the crop per deepest position."""
    total = [1, 1, 1]
    for stride in strides:
        total = [t * s for t, s in zip(total, stride, strict=True)]
    return (total[0], total[1], total[2])


def check_size(size: Sequence[int], factor: Triple) -> None:
    """Raise `ValueError` unless a crop of `size` is a multiple of `factor` and larger than it."""
    size = tuple(size)
    if any(n % f for n, f in zip(size, factor, strict=True)):
        raise ValueError(f"a crop of {size} voxels is no multiple of the strides' product {factor}")
    if size == factor:
        raise ValueError(
            f"a crop of {size} voxels is a single one at the deepest level (strides' product "
            f"{factor}), which instance norm cannot use; take a larger patch or fewer levels"
        )
