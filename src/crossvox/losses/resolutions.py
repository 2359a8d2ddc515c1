"""A loss against labels, at several resolutions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def over_resolutions(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Sequence[Tensor], label: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """The mean of a loss over resolutions, and the loss at the finest alone.

    Args:
        loss: of logits (B, K + 1, x, y, z) and labels (B, x, y, z).
        logits: fine to coarse; the first at the label's size.
        label: (B, X, Y, Z); coarse logits are compared with its voxels next to their centres.
        share: what a resolution counts in the mean, as a share of the next finer one.
    """
    terms = [loss(x, _thinned(label, x.shape[2:])) for x in logits]
    weights = [share**i for i in range(len(terms))]
    total = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()
    return total / sum(weights), terms[0]


def _thinned(label: Tensor, size: Sequence[int]) -> Tensor:
    for axis, n in enumerate(size, start=1):
        centres = (torch.arange(n, device=label.device) + 0.5) * (label.shape[axis] / n)
        label = label.index_select(axis, centres.long())
    return label
