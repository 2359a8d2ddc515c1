"""The supervised loss: cross-entropy and Dice on labelled crops (eq. 2 of the CMC paper)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.batch import IGNORE

SMOOTH = 1.0
"""Voxels added to numerator and denominator of Dice: a sliver of an organ at the crop's edge must
not outweigh whole organs, and a class that is not predicted at all must still get a gradient."""


def supervised_loss(
    logits: Tensor,
    label: Tensor,
    annotated: Tensor | None = None,
    *,
    ce: bool = True,
    dice: bool = True,
    balance: float = 0.0,
) -> Tensor:
    """Compute cross-entropy plus Dice, each averaged over rows (eq. 2).

    Cross-entropy is the weighted mean over the annotated voxels of a row, with weight n^−balance
    where n is the number of voxels of the voxel's class in that row. With balance 0 all voxels
    weigh the same, with 1 all classes do. In the plain mean a small organ's share is so small
    that a short training does not learn it.

    Dice is 1 − (2Σpg + 1)/(Σp + Σg + 1) over the same voxels, averaged over the foreground
    classes that the label contains. For a class it does not contain, Dice would only count false
    voxels, which cross-entropy penalises already, and would make the class vanish everywhere. A
    row without annotated voxels counts as 0, and so does the Dice of a row without foreground.

    Where only some classes were outlined, the voxels of the others are labelled background.
    Their probability is therefore added to the background's, and their Dice is left out.

    Args:
        logits: (B, K + 1, X, Y, Z), background first.
        label: (B, X, Y, Z) int64 class indices; `IGNORE` where not annotated.
        annotated: (B, K + 1) bool, the classes outlined in each row; None = all of them.
        ce: whether to include cross-entropy.
        dice: whether to include Dice.
        balance: exponent that favours voxels of small classes in cross-entropy.

    Returns:
        A scalar.

    Examples:
        >>> logits = torch.zeros(2, 3, 16, 16, 8)  # background and two classes
        >>> label = torch.ones(2, 16, 16, 8, dtype=torch.int64)
        >>> supervised_loss(logits, label, dice=False)  # ln 3
        tensor(1.0986)
    """
    log_p = logits.float().log_softmax(dim=1)
    seen = torch.ones_like(log_p[:, :, 0, 0, 0], dtype=torch.bool)
    if annotated is not None:
        seen = annotated.clone()
        seen[:, 0] = True
        log_p, label = _hide(log_p, label, seen)
    valid = label != IGNORE
    loss = log_p.new_zeros(())
    if ce:
        loss = loss + _cross_entropy(log_p, label, balance)
    if dice:
        loss = loss + _dice(log_p.exp(), label, valid, seen)
    return loss


def _hide(log_p: Tensor, label: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Add the probability of classes that were not outlined to the background's."""
    hidden = ~seen
    hidden[:, 0] = True
    shape = (*hidden.shape, 1, 1, 1)
    joined = log_p.masked_fill(~hidden.view(shape), -torch.inf).logsumexp(dim=1, keepdim=True)
    rows = torch.arange(len(label), device=label.device).view(-1, 1, 1, 1)
    label = torch.where((label != IGNORE) & hidden[rows, label.clamp_min(0)], 0, label)
    return torch.cat([joined, log_p[:, 1:]], dim=1), label


def _cross_entropy(log_p: Tensor, label: Tensor, balance: float) -> Tensor:
    voxels = F.nll_loss(log_p, label, ignore_index=IGNORE, reduction="none")
    classes = range(log_p.shape[1])
    counts = torch.stack([(label == c).sum((1, 2, 3)) for c in classes], dim=1)
    # `IGNORE` = −1 looks up the last column, a weight of 0.
    weights = F.pad(counts.clamp_min(1).float().pow(-balance), (0, 1))
    index = label.flatten(1) % weights.shape[1]
    weight = weights.gather(1, index).view(label.shape)
    total = weight.sum((1, 2, 3))
    return ((voxels * weight).sum((1, 2, 3)) / torch.where(total > 0, total, 1)).mean()


def _dice(p: Tensor, label: Tensor, valid: Tensor, seen: Tensor) -> Tensor:
    p = p[:, 1:]
    classes = torch.arange(1, p.shape[1] + 1, device=p.device).view(1, -1, 1, 1, 1)
    truth = label.unsqueeze(1) == classes
    space = (2, 3, 4)
    volume = truth.sum(space)
    overlap = (p * truth).sum(space)
    predicted = (p * valid.unsqueeze(1)).sum(space)
    score = (2 * overlap + SMOOTH) / (predicted + volume + SMOOTH)
    counts = (volume > 0) & seen[:, 1:]
    return (((1 - score) * counts).sum(1) / counts.sum(1).clamp_min(1)).mean()
