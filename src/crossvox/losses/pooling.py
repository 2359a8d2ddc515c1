"""Bringing volumes of two modalities to where their positions can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.batch import Triple


def comparable(x: Tensor, grid: int, registered: Tensor | bool) -> Tensor:
    """Flatten space, after pooling to at most `grid` positions per axis where voxels differ.

    Rows that are not registered lie on the fine grid all the same as soon as others may be, so
    that the shape depends on no data and all rows can be compared with all, on every rank.

    Args:
        x: (B, C, X, Y, Z).
        grid: positions per axis at most.
        registered: whether the row's voxels correspond across modalities; (B,) bool if they do
            for some rows only.

    Returns:
        (B, C, positions).
    """
    if registered is True:
        return x.flatten(2)
    coarse = F.adaptive_avg_pool3d(x, coarse_size(x.shape[2:], grid))
    if registered is False:
        return coarse.flatten(2)
    coarse = F.interpolate(coarse, x.shape[2:], mode="nearest")
    return torch.where(registered.view(-1, 1, 1, 1, 1), x, coarse).flatten(2)


def coarse_size(size: Sequence[int], grid: int) -> Triple:
    """A size (X, Y, Z), pooled to at most `grid` positions per axis."""
    x, y, z = size
    return min(x, grid), min(y, grid), min(z, grid)
