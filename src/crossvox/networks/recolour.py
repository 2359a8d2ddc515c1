"""Crops in other grey values: what random networks make of them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

CHANNELS = (1, 2, 2, 2, 1)
"""Of the image, and after each convolution of a random network."""


@torch.no_grad()
def recolour(images: Tensor) -> Tensor:
    """Blend each row with what a small random network of its own makes of it.

    Convolutions of size 1 or 3 (for all rows alike), their weights and shifts drawn anew, with
    leaky ReLU between them, change which tissue is brighter than which, but not where tissues meet;
    the share of the result is drawn from 0 to 1 (global intensity non-linear augmentation, Ouyang
    et al., IEEE TMI 2023). Rows keep their mean and standard deviation.

    Args:
        images: (B, 1, X, Y, Z).

    Returns:
        The same shape, without a graph.
    """
    rows = len(images)
    found = images.reshape(1, rows, *images.shape[2:])
    last = len(CHANNELS) - 2
    for layer, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
        size = 1 if torch.rand(()) < 0.5 else 3
        kernel = torch.randn(rows * outputs, inputs, size, size, size, device=images.device)
        shift = torch.randn(rows * outputs, device=images.device)
        # As if the batch's rows were channels, in groups: each row has its own weights.
        spread = kernel / (inputs * size**3) ** 0.5
        found = F.conv3d(found, spread, shift, padding=size // 2, groups=rows)
        if layer < last:
            found = F.leaky_relu(found)
    share = torch.rand(rows, 1, 1, 1, 1, device=images.device)
    other = _standard(found.float().reshape(images.shape))
    mixed = share * other + (1 - share) * _standard(images)
    mean, deviation = _moments(images)
    return _standard(mixed) * deviation + mean


def _standard(images: Tensor) -> Tensor:
    mean, deviation = _moments(images)
    return (images - mean) / deviation


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row; the latter not 0."""
    own = (1, 2, 3, 4)
    return images.mean(own, keepdim=True), images.std(own, keepdim=True).clamp_min(1e-6)
