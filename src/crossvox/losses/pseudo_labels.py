"""Pseudo-labels of unlabelled crops: which voxels to keep, and the loss against soft labels."""

from __future__ import annotations

import torch
from torch import Tensor

from crossvox.batch import IGNORE


def class_balanced_labels(p: Tensor, fraction: float) -> Tensor:
    """Label each voxel by its most probable class, keeping the most confident ones per class.

    Networks are less confident about small organs, so that a single threshold for all classes
    would leave these out. Voxels are ranked over all rows together. Source: Zou et al.,
    Class-Balanced Self-Training, ECCV 2018.

    Args:
        p: (B, K, X, Y, Z) probabilities.
        fraction: fraction of each class's voxels to keep, above 0 and at most 1. At least one
            voxel of each predicted class is kept; ties may keep more than the fraction.

    Returns:
        (B, X, Y, Z) int64 class indices, `IGNORE` where the voxel is not kept.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; must be above 0 and at most 1")
    confidence, label = p.detach().max(dim=1)
    # All voxels in one order, by class and then from the surest down. Positive floats are in the
    # order of their bits.
    bits = confidence.float().view(torch.int32).long()
    key = (label << 32) - bits
    order = key.flatten().sort().values
    counts = torch.stack([(label == c).sum() for c in range(p.shape[1])])
    kept = (fraction * counts.double()).round().long().clamp_min(1)
    last = (counts.cumsum(0) - counts + kept - 1).clamp_max(len(order) - 1)
    return label.masked_fill(key > order[last][label], IGNORE)


def soft_label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute cross-entropy plus Dice with soft labels: −Σ q·log p, and 1 − 2Σpq/(Σp² + Σq²).

    Args:
        logits: (B, K + 1, X, Y, Z).
        target: probabilities q, the same shape.

    Returns:
        Cross-entropy, averaged over voxels, plus Dice, averaged over rows and the foreground
        classes that the target contains (mean probability above 0.1 %).
    """
    log_p = logits.float().log_softmax(dim=1)
    ce = -(target * log_p).sum(dim=1).mean()
    p, q = log_p.exp()[:, 1:].flatten(2), target[:, 1:].flatten(2)
    score = 2 * (p * q).sum(2) / (p.square().sum(2) + q.square().sum(2)).clamp_min(1e-6)
    present = q.mean(dim=2) > 1e-3
    return ce + ((1 - score) * present).sum() / present.sum().clamp_min(1)
