"""A loss against labels, at several resolutions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def over_resolutions(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Sequence[Tensor], label: Tensor
) -> Tensor:
    """The mean of a loss over resolutions, each counting half of the one before it.

    Args:
        loss: of logits (B, K + 1, x, y, z) and labels (B, x, y, z).
        logits: fine to coarse; the first at the label's size.
        label: (B, X, Y, Z); coarse logits are compared with its voxels next to their centres.
    """
    terms = [loss(logits[0], label)]
    for coarse in logits[1:]:
        # Indices of classes are small enough to be exact as floats.
        smaller = F.interpolate(label.unsqueeze(1).float(), coarse.shape[2:], mode="nearest-exact")
        terms.append(loss(coarse, smaller.squeeze(1).to(label.dtype)))
    weights = [0.5**i for i in range(len(terms))]
    total = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()
    return total / sum(weights)
