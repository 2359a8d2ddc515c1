"""Channel-wise semantic consistency: a channel means the same thing in every modality."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Triple
from crossvox.errors import check_choice
from crossvox.losses.pooling import coarse_size, comparable

CSCForm = Literal["infonce", "literal"]

GRID = 4
"""Positions per axis that features are pooled to when voxels do not correspond."""
FEWEST = 8
"""Positions below which any two channels look alike or opposite by chance."""
FLAT = 1e-3
"""Norm of a centred channel below which it has no pattern to compare."""


class CSCLoss(nn.Module):
    """Contrasts the channels of one modality's features with those of another's (eq. 1).

    Channels are centred over space and L2-normalised; S = Fᵃ (Fᵇ)ᵀ / τ is C × C, and the loss
    ½ [CE(S, diagonal) + CE(Sᵀ, diagonal)], the mean over channels and rows; with more than two
    modalities the mean over pairs. Where voxels do not correspond, features are first pooled to
    at most 4 positions per axis. Memory is O(C · voxels + C²) per row. Source: Zhou et al.,
    MICCAI 2024, § 2.1, read as a contrast between channels.

    Args:
        tau: temperature τ.
        form: "infonce" as above; "literal" is eq. 1 as printed, Σ_c [log Σ_c' e^{s_c'} − s_c]
            with s_c the cosine of the two channels c: its denominator runs over the index of its
            outer sum, so it is least (C log C) whenever all similarities are equal, high or low.

    Raises:
        ValueError: if the form is unknown, or on fewer than 8 positions.
    """

    def __init__(self, tau: float = 0.1, form: CSCForm = "infonce") -> None:
        super().__init__()
        check_choice("csc", form, CSCForm)
        self.tau = tau
        self.form = form

    @staticmethod
    def check(grid: Triple) -> None:
        """Raise `ValueError` if features (…, *grid) have fewer than 8 positions to compare."""
        found = math.prod(coarse_size(grid, GRID))
        if found < FEWEST:
            raise ValueError(
                f"CSC compares channels over {found} positions, fewer than {FEWEST}; "
                "take a larger patch or fewer levels, or switch it off (csc: none)"
            )

    def forward(self, features: list[Tensor], registered: Tensor | bool = False) -> Tensor:
        """Compare all pairs of modalities.

        Args:
            features: per modality (B, C, x, y, z); row i of all shows the same anatomy.
            registered: whether the voxels of a row correspond across modalities; (B,) bool if
                they do for some rows only.

        Returns:
            A scalar.
        """
        # Half precision cannot tell cosines apart that a temperature of 0.1 makes matter.
        with torch.autocast(features[0].device.type, enabled=False):
            rows = [_channels(f.float(), registered) for f in features]
            terms = [self._compare(a, b) for a, b in combinations(rows, 2)]
            return torch.stack(terms).mean()

    def _compare(self, a: Tensor, b: Tensor) -> Tensor:
        if self.form == "literal":
            similarity = (a * b).sum(dim=2)
            spread = similarity.logsumexp(dim=1, keepdim=True) - similarity
            return spread.sum(dim=1).mean()
        similarity = a @ b.transpose(1, 2) / self.tau
        to_b = similarity.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
        to_a = similarity.log_softmax(dim=1).diagonal(dim1=1, dim2=2)
        return -0.5 * (to_b.mean() + to_a.mean())


def _channels(features: Tensor, registered: Tensor | bool) -> Tensor:
    """Unit vectors, (B, C, positions)."""
    x, y, z = features.shape[2:]
    CSCLoss.check((x, y, z))
    rows = comparable(features, GRID, registered)
    return F.normalize(rows - rows.mean(dim=2, keepdim=True), dim=2, eps=FLAT)
