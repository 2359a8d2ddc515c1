"""Contrastive anatomical-similar consistency: the same crop, the same organs, in every modality."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from crossvox.errors import check_choice
from crossvox.losses.distributed import gather_rows
from crossvox.losses.pooling import comparable

CACForm = Literal["nt-xent", "literal"]

GRID = 8
"""Positions per axis that predictions are pooled to when voxels do not correspond."""
PRESENT = 1e-3
"""Share of the crop's volume above which a class counts as predicted."""
EPSILON = 1e-6


class CACLoss(nn.Module):
    """Contrasts predictions of one crop in two modalities with those of other crops (eq. 3).

    Probabilities of the foreground classes, pooled to at most 8 positions per axis unless voxels
    correspond, are compared by `dice_similarity`. NT-Xent over the 2U predictions of a pair of
    modalities: the positive is the same crop's other modality, the negatives all others; the
    mean over predictions, then over pairs of modalities. With U = 1 there are no negatives and
    the loss is 1 − similarity. Under data parallelism U counts the crops of all ranks. Sources:
    Zhou et al., MICCAI 2024, § 2.2; the form is that of the work cited there.

    Args:
        tau: temperature τ.
        form: "nt-xent" as above; "literal" is eq. 3 as printed, Σ_j [log Σ_j' e^{s_j'} − s_j]
            with s_j the similarity of crop j's two predictions: least (U log U) whenever all
            crops are equally similar, whether much or little, and 0 for U = 1.

    Raises:
        ValueError: if the form is unknown.
    """

    def __init__(self, tau: float = 0.2, form: CACForm = "nt-xent") -> None:
        super().__init__()
        check_choice("cac", form, CACForm)
        self.tau = tau
        self.form = form

    def forward(self, logits: list[Tensor], registered: Tensor | bool = False) -> Tensor:
        """Compare all pairs of modalities.

        Args:
            logits: per modality (U, K + 1, X, Y, Z), background first; row j of all shows the
                same anatomy.
            registered: whether the voxels of a row correspond across modalities; (U,) bool if
                they do for some rows only.

        Returns:
            A scalar, the same on every rank.
        """
        # Sums over a crop's voxels need more digits than half precision has.
        with torch.autocast(logits[0].device.type, enabled=False):
            foreground = [x.float().softmax(dim=1)[:, 1:] for x in logits]
            rows = [gather_rows(comparable(p, GRID, registered)) for p in foreground]
            terms = [self._compare(p, q) for p, q in combinations(rows, 2)]
            return torch.stack(terms).mean()

    def _compare(self, p: Tensor, q: Tensor) -> Tensor:
        n = len(p)
        similarity, defined = dice_similarity(torch.cat([p, q]))
        ahead = torch.arange(2 * n, device=p.device).roll(n)
        positive = similarity.gather(1, ahead[:, None]).squeeze(1)
        counts = defined.gather(1, ahead[:, None]).squeeze(1)
        if self.form == "literal":
            return (positive[:n].logsumexp(dim=0) - positive[:n]).sum()
        if n == 1:
            return _mean_where(1 - positive, counts)
        itself = torch.eye(2 * n, dtype=torch.bool, device=p.device)
        rivals = (similarity / self.tau).masked_fill(itself | ~defined, -1e4)
        return _mean_where(rivals.logsumexp(dim=1) - positive / self.tau, counts)


def dice_similarity(p: Tensor) -> tuple[Tensor, Tensor]:
    """Sim_Dice between all rows: the mean over classes of (2Σpq + ε) / (Σp² + Σq² + ε).

    A class counts for a pair of rows if its mean probability is above 0.1 % in either.

    Args:
        p: (N, K, positions), foreground probabilities.

    Returns:
        (N, N) similarities, 0 where no class counts, and (N, N) bool, whether one does.
    """
    overlap = torch.einsum("ikv,jkv->ijk", p, p)
    squares = p.square().sum(dim=2)
    total = squares[:, None] + squares[None]
    score = (2 * overlap + EPSILON) / (total + EPSILON)
    there = p.detach().mean(dim=2) > PRESENT
    either = there[:, None] | there[None]
    count = either.sum(dim=2)
    return (score * either).sum(dim=2) / count.clamp_min(1), count > 0


def _mean_where(values: Tensor, counts: Tensor) -> Tensor:
    return (values * counts).sum() / counts.sum().clamp_min(1)
