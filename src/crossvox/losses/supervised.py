"""Cross-entropy and Dice on labelled crops, with unannotated voxels and classes left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.batch import IGNORE

SMOOTH = 1.0
"""Voxels added to both sides of the Dice fraction: a sliver of an organ at the crop's edge must
not outweigh whole organs, and a class not predicted at all must still get a gradient."""


def supervised_loss(
    logits: Tensor,
    label: Tensor,
    annotated: Tensor | None = None,
    *,
    ce: bool = True,
    dice: bool = True,
    balance: float = 0.0,
) -> Tensor:
    """Cross-entropy plus Dice, each the mean over rows of a per-row value (eq. 2).

    Cross-entropy is the mean over the row's annotated voxels, each weighted by n^−balance where n
    counts the voxels of its class in that row: at 0 all voxels weigh the same, at 1 all classes.
    A small organ's share of the plain mean is so small that a short training never sees it.

    Dice is 1 − (2Σpg + 1)/(Σp + Σg + 1) over these voxels, averaged over the foreground classes
    that the row's truth contains: the fraction of a class that it does not contain tells nothing
    but the number of false voxels, which cross-entropy already punishes, and pushes the class to
    vanish everywhere. A row without annotated voxels counts as 0, and so does the Dice of one
    without foreground.

    Where only some classes were outlined, the others' probability joins the background's, since
    their voxels are labelled background, and their Dice is left out.

    Args:
        logits: (B, K + 1, X, Y, Z), background first.
        label: (B, X, Y, Z) int64 class indices; `IGNORE` where unannotated.
        annotated: (B, K + 1) bool, the classes outlined in that row; None = all of them.
        ce: whether cross-entropy is part of it.
        dice: whether Dice is part of it.
        balance: exponent by which cross-entropy favours voxels of small classes.
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
    """Let the classes that were not outlined join the background."""
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
    # A column of zeros at the end, where `IGNORE` = −1 looks up its weight.
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
