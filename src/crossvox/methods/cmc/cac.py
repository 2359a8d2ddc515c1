"""Contrastive Anatomical-similar Consistency, L_CAC (Zhou et al., MICCAI 2024, § 2.2, eq. 3)."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from crossvox.batch import Rows
from crossvox.errors import check_choice
from crossvox.losses.distributed import gather_rows
from crossvox.losses.pooling import flatten_space

CACForm = Literal["nt-xent", "literal"]

GRID = 8
"""Positions per axis after pooling, where voxels do not correspond."""
PRESENT = 1e-3
"""Mean probability in the crop above which a class counts as predicted."""
EPSILON = 1e-6


class CACLoss(nn.Module):
    """Contrast of one crop's predictions in two modalities with those of other crops (eq. 3).

    NT-Xent over the 2U predictions of U crops in two modalities: the positive of a prediction is
    the same crop's in the other modality, all others are negatives,

        L_CAC = mean_i [ log Σ_{j≠i} e^{Sim_Dice(i, j)/τ} − Sim_Dice(i, positive of i)/τ ],

    averaged over pairs of modalities. Sim_Dice (`dice_similarity`) compares the foreground
    probabilities, which are first pooled to at most 8 positions per axis unless voxels
    correspond. With U = 1 there are no negatives, and the loss is 1 − Sim_Dice. Under data
    parallelism U counts the crops of all ranks. The form is that of the paper's reference 13; as
    printed, the denominator of eq. 3 runs over the index of the outer sum
    (docs/explanation/paper.md).

    Args:
        tau: temperature τ.
        form: "nt-xent" as above; "literal" is eq. 3 as printed, Σ_j [log Σ_j' e^{s_j'} − s_j]
            with s_j the similarity of crop j's two predictions. It is least (U log U) whenever
            all crops are equally similar, much or little, and 0 for U = 1.

    Raises:
        ValueError: the form is unknown.

    Examples:
        >>> logits = 5 * torch.randn(2, 3, 16, 16, 8)  # two crops
        >>> cac = CACLoss(tau=0.2)
        >>> bool(cac([logits, logits]) < cac([logits, logits.flip(0)]))  # same crops, other crops
        True
    """

    def __init__(self, tau: float = 0.2, form: CACForm = "nt-xent") -> None:
        super().__init__()
        check_choice("cac", form, CACForm)
        self.tau = tau
        self.form = form

    def forward(self, logits: list[Tensor], registered: Rows | bool = False) -> Tensor:
        """Compute the mean loss over all pairs of modalities.

        Args:
            logits: per modality (U, K + 1, X, Y, Z), background first; row j of all shows the
                same anatomy.
            registered: whether the voxels of a row correspond across modalities; U values if
                this may differ between rows.

        Returns:
            A scalar, the same on every rank.
        """
        # Sums over a crop's voxels need more digits than half precision has.
        with torch.autocast(logits[0].device.type, enabled=False):
            foreground = [x.float().softmax(dim=1)[:, 1:] for x in logits]
            rows = [gather_rows(flatten_space(p, GRID, registered)) for p in foreground]
            terms = [self._compare(p, q) for p, q in combinations(rows, 2)]
            return torch.stack(terms).mean()

    def _compare(self, p: Tensor, q: Tensor) -> Tensor:
        n = len(p)
        similarity, defined = dice_similarity(torch.cat([p, q]))
        # Row i of p and row i of q, that is row n + i, are each other's positives.
        partner = torch.arange(2 * n, device=p.device).roll(n)
        positive = similarity.gather(1, partner[:, None]).squeeze(1)
        counts = defined.gather(1, partner[:, None]).squeeze(1)
        if self.form == "literal":  # eq. 3 to the letter: no two different crops are compared
            return (positive[:n].logsumexp(dim=0) - positive[:n]).sum()
        if n == 1:
            return _mean_where(1 - positive, counts)
        itself = torch.eye(2 * n, dtype=torch.bool, device=p.device)
        rivals = (similarity / self.tau).masked_fill(itself | ~defined, -1e4)
        return _mean_where(rivals.logsumexp(dim=1) - positive / self.tau, counts)


def dice_similarity(p: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Sim_Dice between all rows: the mean over classes of (2Σpq + ε) / (Σp² + Σq² + ε).

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
