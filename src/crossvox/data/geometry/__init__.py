"""Grids in world space: where voxels lie, how scans are oriented, and resampling between them.

`crossvox.data.geometry.resampling` is imported by those who resample: it needs torch.
"""

from crossvox.data.geometry.grid import Grid, coverage, respace, same_grid, voxel_map
from crossvox.data.geometry.orientation import (
    dataset_frame,
    orient,
    orient_grid,
    signed_permutation,
)

__all__ = [
    "Grid",
    "coverage",
    "dataset_frame",
    "orient",
    "orient_grid",
    "respace",
    "same_grid",
    "signed_permutation",
    "voxel_map",
]
