"""Deep supervision: labels also teach the coarser levels of a decoder (Lee et al., AISTATS 2015).

As in nnU-Net (Isensee et al., Nature Methods 2021), each level weighs half of the next finer one,
and the coarsest level of the decoder has no label, unless it is the only coarse one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.networks.backbone import DeepDecoder
from crossvox.networks.blocks import Pointwise


class DeepHeads(nn.Module):
    """Logits of a decoder's levels, each at that level's size.

    Args:
        decoder: whose levels are read.
        n_classes: channels of the logits, background included.

    Raises:
        ValueError: the decoder's levels cannot be read, or there are too few of them.
    """

    def __init__(self, decoder: nn.Module, n_classes: int) -> None:
        super().__init__()
        if not isinstance(decoder, DeepDecoder):
            raise ValueError(
                "method.deep_supervision needs the levels of a U-Net's decoder; take --backbone "
                "unet or leave it off"
            )
        if len(decoder.channels) < 3:
            raise ValueError(
                f"method.deep_supervision needs 3 levels at least, found {len(decoder.channels)}; "
                "raise budget.levels or leave it off"
            )
        coarse = decoder.channels[1:-1]
        self.heads = nn.ModuleList(Pointwise(c, n_classes) for c in coarse[1:] or coarse)

    def forward(self, decoder: DeepDecoder, features: list[Tensor]) -> list[Tensor]:
        """Return the logits of all supervised levels, fine to coarse."""
        *_, finest = risen = decoder.rise(features)
        coarse = risen[-1 - len(self.heads) : -1]
        logits = [head(x) for head, x in zip(self.heads, coarse, strict=True)]
        return [decoder.close(finest), *reversed(logits)]


def deep_loss(
    logits: Sequence[Tensor], label: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return the mean of a loss over levels, level i with weight 2^−i.

    Args:
        logits: (B, K + 1, …) per level, fine to coarse.
        label: (B, X, Y, Z) class indices at the finest size; coarser ones take the nearest voxel.
        loss: of logits and label of one size.

    Examples:
        >>> label = torch.ones(1, 8, 8, 8, dtype=torch.int64)
        >>> levels = [torch.zeros(1, 2, n, n, n) for n in (8, 4)]
        >>> deep_loss(levels, label, F.cross_entropy)  # ln 2 on both levels
        tensor(0.6931)
    """
    weights = [2.0**-i for i in range(len(logits))]
    terms = [
        w / sum(weights) * loss(x, _shrink(label, x.shape[2:]))
        for w, x in zip(weights, logits, strict=True)
    ]
    return torch.stack(terms).sum()


def _shrink(label: Tensor, size: Sequence[int]) -> Tensor:
    if label.shape[1:] == torch.Size(size):
        return label
    nearest = F.interpolate(label.unsqueeze(1).float(), tuple(size), mode="nearest-exact")
    return nearest.squeeze(1).long()
