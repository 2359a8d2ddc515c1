"""Changed intensities of unlabelled crops, from which soft or hard labels are learnt."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def disturb(images: Tensor, gamma: float) -> Tensor:
    """Apply a random gamma curve, scale, shift and noise to each row.

    The scale lies between 0.7 and 1.3, the shift between −0.3 and 0.3, and the noise's standard
    deviation is 0.2 at most.

    Args:
        images: (B, 1, X, Y, Z).
        gamma: largest exponent of the curve, between the row's least and largest value; 1 / gamma
            is the smallest.
    """

    def draw(least: float, most: float) -> Tensor:
        return torch.empty(len(images), 1, 1, 1, 1, device=images.device).uniform_(least, most)

    low, high = images.amin((1, 2, 3, 4), True), images.amax((1, 2, 3, 4), True)
    width = (high - low).clamp_min(1e-6)
    bend = math.log(gamma)
    bent = ((images - low) / width).clamp(0, 1) ** draw(-bend, bend).exp() * width + low
    noise = torch.randn_like(images) * draw(0, 0.2)
    return bent * draw(0.7, 1.3) + draw(-0.3, 0.3) + noise
