"""Whether two grids are one, and how much of the world they share."""

from __future__ import annotations

import itertools

import numpy as np

from crossvox.data.geometry.grid import Grid, voxel_map

MAX_SHIFT = 0.1
"""How far the corners of a label may lie from its image's, in sizes of the smallest voxel edge."""


def corner_shift(first: Grid, second: Grid) -> float:
    """How far apart, in mm, the corners of two grids of one shape lie at most."""
    ends = [(0, n - 1) for n in first.shape]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)]).T
    moved = ((first.affine - second.affine) @ corners)[:3]
    return float(np.linalg.norm(moved, axis=0).max())


def agree(first: Grid, second: Grid) -> bool:
    """Whether two grids are the same but for what rounding in headers does."""
    limit = MAX_SHIFT * second.spacing.min()
    return first.shape == second.shape and corner_shift(first, second) <= limit


def coverage(grid: Grid, other: Grid, samples: int = 24) -> float:
    """The share, from 0 to 1, of `grid`'s field of view that lies in `other`'s.

    Counted on `samples` points along each axis, so it is exact to about a percent.
    """
    cells = [(np.arange(samples) + 0.5) / samples * n - 0.5 for n in grid.shape]
    points = np.stack(np.meshgrid(*cells, indexing="ij"), -1).reshape(-1, 3)
    matrix = voxel_map(other, grid)
    at = points @ matrix[:3, :3].T + matrix[:3, 3]
    inside = (at >= -0.5) & (at <= np.array(other.shape) - 0.5)
    return float(inside.all(axis=1).mean())
