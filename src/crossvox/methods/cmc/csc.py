"""Channel-wise Semantic Consistency, L_CSC (Zhou et al., MICCAI 2024, § 2.1, eq. 1)."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Rows, Triple
from crossvox.errors import check_choice
from crossvox.losses.distributed import gather_rows
from crossvox.losses.pooling import flatten_space, pooled_size
from crossvox.utils.rows import row_mask

CSCForm = Literal["content", "infonce", "literal"]

GRID = 4
"""Positions per axis after pooling, where voxels do not correspond."""
FEWEST = 8
"""Fewest positions to compare; over fewer, any two channels look alike or opposite by chance."""
FLAT = 1e-3
"""Norm of a centred channel below which it counts as constant."""


class CSCLoss(nn.Module):
    """Contrast of the channels of F_ds^a with those of F_ds^b: channel c means c in both (eq. 1).

        S = F^a (F^b)ᵀ / τ                             (C × C cosines)
        L_CSC = ½ [CE(S, diagonal) + CE(Sᵀ, diagonal)]

    From the channels of crops of one subject their mean over the batch is taken away first: what
    all crops show, such as a mark of the place in the crop, cannot be matched, only what tells them
    apart. A single such crop keeps it. Then channels are centred over space and L2-normalised; CE
    is averaged over channels and rows, and the loss over pairs of modalities. Unless voxels
    correspond, features are first pooled to at most 4 positions per axis. As printed, the sum in
    the denominator of eq. 1 runs over the index of the outer sum; this is read as a contrast
    between channels (docs/explanation/paper.md). Memory per row is O(C · voxels + C²); with
    "content" each process has the rows of all.

    Args:
        tau: temperature τ.
        form: "content" as above; "infonce", the same without taking a mean over crops away;
            "literal" is eq. 1 as printed, Σ_c [log Σ_c' e^{s_c'} − s_c]
            with s_c the cosine of the two channels c, which are neither centred nor pooled. It is
            least (C log C) whenever all similarities are equal, high or low.

    Raises:
        ValueError: the form is unknown, or there are fewer than 8 positions.

    Examples:
        >>> f_ds = torch.randn(2, 64, 5, 5, 3)
        >>> csc = CSCLoss(tau=0.1)
        >>> bool(csc([f_ds, f_ds]) < csc([f_ds, f_ds.flip(1)]))  # same channels, other channels
        True
    """

    def __init__(self, tau: float = 0.1, form: CSCForm = "content") -> None:
        super().__init__()
        check_choice("csc", form, CSCForm)
        self.tau = tau
        self.form = form

    @staticmethod
    def check(grid: Triple) -> None:
        """Raise `ValueError` if features (…, *grid) have fewer than 8 positions to compare."""
        found = math.prod(pooled_size(grid, GRID))
        if found < FEWEST:
            raise ValueError(
                f"CSC compares channels over {found} positions, fewer than {FEWEST}; "
                "take a larger patch or fewer levels, or switch it off (csc: none)"
            )

    def forward(
        self,
        features: list[Tensor],
        registered: Rows | bool = False,
        one_subject: Rows | None = None,
    ) -> Tensor:
        """Compute the mean loss over all pairs of modalities.

        Args:
            features: F_ds of each modality, (B, C, x, y, z); row i of all shows the same anatomy.
            registered: whether the voxels of a row correspond across modalities; B values if
                this may differ between rows.
            one_subject: the rows whose modalities are of one subject; None = all.

        Returns:
            A scalar; with "content" the same on every rank.
        """
        rows = self._rows(features, registered)
        if self.form == "content":
            mine = (True,) * len(features[0]) if one_subject is None else one_subject
            rows = _apart(rows, row_mask(mine, rows[0].device))
        return self._contrast(rows)

    @torch.no_grad()
    def controls(
        self, features: list[Tensor], registered: Rows | bool = False
    ) -> dict[str, Tensor]:
        """Compute CSC where it should be high, or low for one reason only, to be logged.

        "csc_shuffled" compares each crop as it is with the row before, another place. If it is low,
        features mark positions in the crop, whatever the crop shows. "csc_content" compares what
        differs between a row and the one before, F_i − F_{i−1}, in both modalities. A pattern that
        all crops have in common cancels out; if nothing else matches, about ln C is left.

        Args:
            features: as in `forward`.
            registered: as in `forward`.

        Returns:
            Name → scalar; nothing for a single row.
        """
        rows = self._rows(features, registered)
        if len(rows[0]) < 2:
            return {}
        shuffled = [self._contrast([a, b.roll(1, 0)]) for a, b in combinations(rows, 2)]
        content = self._contrast([r - r.roll(1, 0) for r in rows])
        return {"csc_shuffled": torch.stack(shuffled).mean(), "csc_content": content}

    def _rows(self, features: list[Tensor], registered: Rows | bool) -> list[Tensor]:
        """Return the features of each modality, (B, C, positions)."""
        x, y, z = features[0].shape[2:]
        self.check((x, y, z))
        if self.form == "literal":
            return [f.float().flatten(2) for f in features]
        return [flatten_space(f.float(), GRID, registered) for f in features]

    def _contrast(self, rows: list[Tensor]) -> Tensor:
        """Return the mean loss over all pairs of modalities, of channels of unit length."""
        if self.form != "literal":
            rows = [r - r.mean(dim=2, keepdim=True) for r in rows]
        # In half precision, cosines that a temperature of 0.1 sets apart would be equal.
        with torch.autocast(rows[0].device.type, enabled=False):
            unit = [F.normalize(r, dim=2, eps=FLAT) for r in rows]
            return torch.stack([self._compare(a, b) for a, b in combinations(unit, 2)]).mean()

    def _compare(self, a: Tensor, b: Tensor) -> Tensor:
        if self.form == "literal":  # eq. 1 to the letter: only equal channels are compared
            similarity = (a * b).sum(dim=2)
            spread = similarity.logsumexp(dim=1, keepdim=True) - similarity
            return spread.sum(dim=1).mean()
        similarity = a @ b.transpose(1, 2) / self.tau
        # −log softmax on the diagonal: once over the channels of b, once over those of a.
        to_b = similarity.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
        to_a = similarity.log_softmax(dim=1).diagonal(dim1=1, dim2=2)
        return -0.5 * (to_b.mean() + to_a.mean())


def _apart(rows: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """Return the rows of all ranks, the chosen ones without their mean if there are several.

    Args:
        rows: (B, C, positions) of each modality, of this rank.
        chosen: (B,) bool.
    """
    taken = gather_rows(chosen.float()).view(-1, 1, 1)
    n = taken.sum()
    gathered = [gather_rows(r) for r in rows]
    means = [(taken * r).sum(dim=0, keepdim=True) / n.clamp_min(1) for r in gathered]
    return [r - taken * (n > 1) * mean for r, mean in zip(gathered, means, strict=True)]
