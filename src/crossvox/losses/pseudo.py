"""Learning from what a network says: class-balanced hard labels, and soft ones."""

from __future__ import annotations

import torch
from torch import Tensor

from crossvox.batch import IGNORE


def class_balanced_labels(p: Tensor, fraction: float) -> Tensor:
    """The most probable class where it is among the surest `fraction` of its class, else `IGNORE`.

    One threshold for all classes would leave small organs, of which networks are less sure, out
    (class-balanced self-training, Zou et al., ECCV 2018). Ranked over all rows together.

    Args:
        p: (B, K, X, Y, Z) probabilities.
        fraction: share of each class's voxels to keep, above 0 and at most 1; at least one voxel
            of each class found is kept, and with equal confidence more than asked for.

    Returns:
        (B, X, Y, Z) int64 class indices.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; must be above 0 and at most 1")
    confidence, label = p.detach().max(dim=1)
    kept = torch.full_like(label, IGNORE)
    for c in range(p.shape[1]):
        mine = label == c
        values = confidence[mine]
        if len(values):
            # The k-th largest is the (n − k + 1)-th smallest.
            k = max(1, round(fraction * len(values)))
            threshold = values.kthvalue(len(values) - k + 1).values
            kept = torch.where(mine & (confidence >= threshold), c, kept)
    return kept


def soft_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy + Dice with soft labels: −Σ q·log p, and 1 − 2Σpq/(Σp² + Σq²).

    Args:
        logits: (B, K + 1, X, Y, Z).
        target: probabilities q of the same shape.

    Returns:
        The mean over voxels of the one plus the mean over rows and foreground classes that the
        target holds (a mean of 0.1 % at least) of the other.
    """
    log_p = logits.float().log_softmax(dim=1)
    ce = -(target * log_p).sum(dim=1).mean()
    p, q = log_p.exp()[:, 1:].flatten(2), target[:, 1:].flatten(2)
    score = 2 * (p * q).sum(2) / (p.square().sum(2) + q.square().sum(2)).clamp_min(1e-6)
    there = q.mean(dim=2) > 1e-3
    return ce + ((1 - score) * there).sum() / there.sum().clamp_min(1)
