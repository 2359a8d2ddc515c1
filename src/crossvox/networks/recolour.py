"""Crops in other grey values: what random networks make of them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.networks.blocks import full_precision

CHANNELS = (1, 2, 2, 2, 1)
"""Of the image, and after each convolution of a random network."""


@torch.no_grad()
def recolour(images: Tensor) -> Tensor:
    """Blend each row with what a small random network of its own makes of it.

    Convolutions of size 1 or 3 (drawn per layer, for all rows alike) with leaky ReLU between them,
    weights N(0, 1 / fan-in) and shifts N(0, 1), change which tissue is brighter than which, but
    hardly where tissues meet; the share of the result is drawn from 0 to 1. Rows keep their mean
    and standard deviation. After global intensity non-linear augmentation (Ouyang et al., IEEE TMI
    2023), whose weights are not scaled and whose rows keep their norm.

    Args:
        images: (B, 1, X, Y, Z).

    Returns:
        The same shape, float32, without a graph.
    """
    with full_precision(images):  # rounding would be stretched along with a small spread
        images = images.float()
        other = _standard(_random_network(images))
        share = torch.rand(len(images), 1, 1, 1, 1, device=images.device)
        mixed = share * other + (1 - share) * _standard(images)
        mean, deviation = _moments(images)
        return _standard(mixed) * deviation + mean


def _random_network(images: Tensor) -> Tensor:
    rows = len(images)
    # As if the batch's rows were channels, in groups: each row has its own weights.
    found = images.reshape(1, rows, *images.shape[2:])
    for layer, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
        size = 1 if torch.rand(()) < 0.5 else 3
        kernel = torch.randn(rows * outputs, inputs, size, size, size, device=images.device)
        shift = torch.randn(rows * outputs, device=images.device)
        # Zeros beyond the edge would be a frame of some other tissue.
        wider = F.pad(found, (size // 2,) * 6, mode="replicate")
        found = F.conv3d(wider, kernel / (inputs * size**3) ** 0.5, shift, groups=rows)
        if layer < len(CHANNELS) - 2:
            found = F.leaky_relu(found)
    return found.reshape(images.shape)


def _standard(images: Tensor) -> Tensor:
    mean, deviation = _moments(images)
    return (images - mean) / deviation


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row; the latter not 0."""
    own = (1, 2, 3, 4)
    return images.mean(own, keepdim=True), images.std(own, keepdim=True).clamp_min(1e-6)
