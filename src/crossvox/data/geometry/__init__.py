"""Grids in world space: where voxels lie, how scans are oriented, and resampling between them."""

from crossvox.data.geometry.grid import Grid, coverage, respace, same_grid, voxel_map
from crossvox.data.geometry.orientation import (
    dataset_frame,
    orient,
    orient_grid,
    signed_permutation,
)
from crossvox.data.geometry.resampling import antialias, antialias_mask, resample, sample

__all__ = [
    "Grid",
    "antialias",
    "antialias_mask",
    "coverage",
    "dataset_frame",
    "orient",
    "orient_grid",
    "resample",
    "respace",
    "same_grid",
    "sample",
    "signed_permutation",
    "voxel_map",
]
