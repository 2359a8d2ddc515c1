"""Flattening of volumes so that positions of two modalities can be compared."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from crossvox.batch import Rows, Triple
from crossvox.utils.rows import choose_rows


def flatten_space(x: Tensor, grid: int, registered: Rows | bool) -> Tensor:
    """Flatten space, after pooling to at most `grid` positions per axis where voxels differ.

    If only some rows are registered, the others are pooled and resized back to the fine grid.
    Then the shape does not depend on the data, and rows can be compared across ranks.

    Args:
        x: (B, C, X, Y, Z).
        grid: largest number of positions per axis after pooling.
        registered: whether the rows' voxels correspond across modalities; B values if this
            may differ between rows.

    Returns:
        (B, C, positions).
    """
    if registered is True or (registered and all(registered)):
        return x.flatten(2)
    coarse = F.adaptive_avg_pool3d(x, pooled_size(x.shape[2:], grid))
    if registered is False:
        return coarse.flatten(2)
    coarse = F.interpolate(coarse, x.shape[2:], mode="nearest")
    return choose_rows(registered, x, coarse).flatten(2)


def pooled_size(size: Sequence[int], grid: int) -> Triple:
    """Return a size (X, Y, Z) after pooling to at most `grid` positions per axis."""
    x, y, z = size
    return min(x, grid), min(y, grid), min(z, grid)
