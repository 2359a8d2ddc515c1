"""The grid of a scan in world space, and how two grids lie to each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

MAX_SHIFT = 0.1
"""Largest distance between corners of equal grids, in parts of the smallest voxel edge."""

SAMPLES = 24
"""Points along each axis on which `coverage` is counted."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an array lie.

    Attributes:
        shape: voxels per axis.
        affine: (4, 4) float64, voxel index → world position in mm (RAS+, voxel centres).

    >>> grid = Grid((512, 512, 90), np.diag([0.7, 0.7, 5, 1]))
    >>> grid.spacing
    array([0.7, 0.7, 5. ])
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel size in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def directions(self) -> np.ndarray:
        """(3, 3); column k is the unit world vector of array axis k."""
        return self.affine[:3, :3] / self.spacing

    @property
    def orientation(self) -> str:
        """Three letters, such as RAS: the side of the body to which each array axis leads."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def extent(self) -> np.ndarray:
        """(3,) size of the field of view in mm, along the array axes."""
        return self.spacing * np.array(self.shape)

    @property
    def centre(self) -> np.ndarray:
        """(3,) world position in mm of the middle of the field of view."""
        return self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]

    def contains(self, position: np.ndarray) -> bool:
        """Return whether the field of view contains a world position, (4,) mm with a final 1."""
        index = (np.linalg.inv(self.affine) @ position)[:3]
        return bool(((index >= -0.5) & (index <= np.array(self.shape) - 0.5)).all())

    def part(self, box: Sequence[slice]) -> Grid:
        """Return the grid of `array[box]`, which lies inside the array."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
        x, y, z = (side.stop - side.start for side in box)
        return Grid((x, y, z), affine)

    def to_dict(self) -> dict[str, list]:
        """Return the grid as plain values, ready for JSON."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_dict(cls, values: dict) -> Grid:
        """Return the grid that `to_dict` was called on."""
        return cls(tuple(values["shape"]), np.array(values["affine"], dtype=np.float64))


def respace(grid: Grid, spacing: Sequence[float]) -> Grid:
    """Return a grid over the same field of view with (nearly) the given spacing in mm.

    The outer corner of the first voxel stays where it is. The last voxel may end up to half a
    voxel beyond or short of the field of view.
    """
    scale = np.asarray(spacing, dtype=np.float64) / grid.spacing
    shape = np.maximum(1, np.round(np.array(grid.shape) / scale)).astype(int)
    inner = np.diag([*scale, 1.0])
    inner[:3, 3] = (scale - 1) / 2
    return Grid(tuple(int(n) for n in shape), grid.affine @ inner)  # type: ignore[arg-type]


def voxel_map(source: Grid, target: Grid) -> np.ndarray:
    """Return the (4, 4) map from voxel indices of `target` to voxel indices of `source`."""
    return np.linalg.inv(source.affine) @ target.affine


def corner_shift(first: Grid, second: Grid) -> float:
    """Return the largest distance in mm between the corners of two grids of one shape."""
    ends = [(0, n - 1) for n in first.shape]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)]).T
    moved = ((first.affine - second.affine) @ corners)[:3]
    return float(np.linalg.norm(moved, axis=0).max())


def same_grid(first: Grid, second: Grid) -> bool:
    """Return whether two grids are equal up to the rounding of headers."""
    limit = MAX_SHIFT * second.spacing.min()
    return first.shape == second.shape and corner_shift(first, second) <= limit


def coverage(grid: Grid, other: Grid) -> float:
    """Return the share, from 0 to 1, of `grid`'s field of view that lies in `other`'s.

    It is counted on `SAMPLES` points along each axis, so it is exact to about a percent.
    """
    cells = [(np.arange(SAMPLES) + 0.5) / SAMPLES * n - 0.5 for n in grid.shape]
    points = np.stack(np.meshgrid(*cells, indexing="ij"), -1).reshape(-1, 3)
    matrix = voxel_map(other, grid)
    at = points @ matrix[:3, :3].T + matrix[:3, 3]
    inside = (at >= -0.5) & (at <= np.array(other.shape) - 0.5)
    return float(inside.all(axis=1).mean())
