"""Resampling of arrays from one grid to another.

Grids with parallel axes are resampled one axis at a time, which needs little memory and gives any
part on its own. Other pairs of grids go through `torch.nn.functional.grid_sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional as F

from crossvox.data.geometry.grid import Grid, voxel_map
from crossvox.utils.boxes import mask_box

Mode = Literal["linear", "nearest"]
TRUNCATE = 3.0
"""Standard deviations after which the Gaussian of `antialias` is cut off."""
SLAB_VALUES = 4_000_000
"""Values that are resampled at a time. Intermediate arrays hold a few times as many."""


def resample(
    array: np.ndarray,
    source: Grid,
    target: Grid,
    mode: Mode = "linear",
    fill: float | None = 0.0,
) -> np.ndarray:
    """Return the values of `array` at the voxels of another grid.

    Args:
        array: (X, Y, Z) on `source`.
        source: grid of `array`.
        target: grid to resample to, at any orientation.
        mode: `linear` or `nearest`.
        fill: value outside the source's field of view; None continues the border voxels.

    Returns:
        Array of `target.shape`, float32 for `linear`, the input's type for `nearest`.

    >>> resample(scan.data, scan.grid, respace(scan.grid, (1, 1, 1)))
    """
    matrix = voxel_map(source, target)
    if are_parallel(matrix, target.shape):
        if mode == "nearest":
            return _take_nearest(array, matrix, target.shape, fill)
        return interpolate(array, parallel_axes(matrix, array.shape, target.shape), fill)
    linear = matrix[:3, :3]
    out = np.empty(target.shape, dtype=np.float32 if mode == "linear" else array.dtype)
    step = max(1, SLAB_VALUES // (target.shape[1] * target.shape[2]))
    volume = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    for start in range(0, target.shape[0], step):
        stop = min(start + step, target.shape[0])
        shifted = matrix.copy()
        shifted[:3, 3] += linear[:, 0] * start
        out[start:stop] = sample(
            volume, shifted, (stop - start, *target.shape[1:]), mode, fill
        ).numpy()
    return out


def antialias(array: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Blur an array along the axes that will be sampled more coarsely.

    Args:
        array: one axis per factor.
        factors: new voxel size / old voxel size.
    """
    for axis, factor in enumerate(factors):
        if factor > 1.2:
            sigma = (factor - 1) / 2
            array = gaussian_filter1d(array, sigma, axis=axis, mode="nearest", truncate=TRUNCATE)
    return array


def antialias_mask(mask: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Blur a mask of 0 and 1 as `antialias` does, but only the box that the blur reaches.

    Args:
        mask: (X, Y, Z) bool.
        factors: new voxel size / old voxel size.

    Returns:
        (X, Y, Z) float32.
    """
    out = np.zeros(mask.shape, dtype=np.float32)
    box = mask_box(mask, [int(TRUNCATE * max(f - 1, 0) / 2 + 0.5) for f in factors])
    if box is not None:
        out[box] = antialias(mask[box].astype(np.float32), factors)
    return out


def sample(
    volume: torch.Tensor,
    matrix: np.ndarray,
    shape: Sequence[int],
    mode: Mode = "linear",
    fill: float | None = 0.0,
) -> torch.Tensor:
    """Return the values of `volume` at `matrix @ index` for every index of `shape`.

    Args:
        volume: (X, Y, Z) float32.
        matrix: (4, 4), output voxel → input voxel.
        shape: of the output.
        mode: `linear` or `nearest`.
        fill: value more than half a voxel outside `volume`; None continues the border.

    Returns:
        Float32 tensor of `shape`.
    """
    # The coordinates of grid_sample run from −1 to 1 over the outer voxel edges, last array axis
    # first: u = (2 i + 1) / n − 1.
    size, given = np.array(shape, dtype=float), np.array(volume.shape, dtype=float)
    linear = matrix[:3, :3] * size / given[:, None]
    middle = (2 * (matrix[:3, :3] @ ((size - 1) / 2) + matrix[:3, 3]) + 1) / given - 1
    # Summed per axis; affine_grid would multiply every voxel's coordinates by a matrix.
    x, y, z = (
        torch.from_numpy(
            np.outer((2 * np.arange(n) + 1) / n - 1, linear[::-1, axis]).astype(np.float32)
        )
        for axis, n in enumerate(shape)
    )
    start = torch.from_numpy(middle[::-1].astype(np.float32))
    points = (x[:, None, None] + (y[:, None] + (z + start)))[None]
    values = F.grid_sample(
        volume[None, None],
        points,
        mode="bilinear" if mode == "linear" else "nearest",
        padding_mode="border",
        align_corners=False,
    )[0, 0]
    reach = np.abs(middle) + np.abs(linear) @ ((size - 1) / size)
    if fill is None or (reach <= 1).all():
        return values
    outside = (points[0].abs() > 1).any(-1)
    return values.masked_fill_(outside, fill)


@dataclass(frozen=True)
class Axis:
    """Where the voxels along one axis of a target lie between those of its source.

    Attributes:
        position: (N,) float64, in voxels of the source; may lie outside of it.
        size: number of voxels of the whole source, of which an array may hold a part.
        first: index of the first voxel that the array holds.
        growth: target voxels per source voxel of the whole axis. The axis that shrinks most is
            resampled first, whatever part of it is asked for, so that parts equal the whole bit
            for bit.
    """

    position: np.ndarray
    size: int
    first: int
    growth: float

    @property
    def low(self) -> np.ndarray:
        """(N,) lower neighbour of each position, counted in the whole source."""
        inside = np.clip(self.position, 0, self.size - 1)
        return np.minimum(inside.astype(int), max(self.size - 2, 0))

    @property
    def reach(self) -> slice:
        """The source voxels that the positions lie between."""
        low = self.low
        return slice(int(low.min()), int(min(low.max() + 2, self.size)))

    def part(self, start: int, stop: int, first: int) -> Axis:
        """Return target voxels `start` … `stop` of a source held from voxel `first` on."""
        return Axis(self.position[start:stop], self.size, first, self.growth)


def are_parallel(matrix: np.ndarray, shape: Sequence[int]) -> bool:
    """Return whether two grids have parallel axes, by the map between their voxels.

    Rotation may move no voxel of the target, of shape `shape`, by more than 1e-4 voxels.
    """
    linear = matrix[:3, :3]
    off = linear - np.diag(np.diag(linear))
    return bool(np.abs(off).max() < 1e-4 / max(shape))


def parallel_axes(matrix: np.ndarray, source: Sequence[int], target: Sequence[int]) -> list[Axis]:
    """Return the three axes of a target grid that is parallel to its source.

    Args:
        matrix: (4, 4), voxel of the target → voxel of the source; its linear part is diagonal.
        source: shape of the source.
        target: shape of the target.
    """
    return [
        Axis(
            matrix[k, k] * np.arange(target[k]) + matrix[k, 3],
            source[k],
            0,
            target[k] / source[k],
        )
        for k in range(3)
    ]


def interpolate(array: np.ndarray, axes: Sequence[Axis], fill: float | None) -> np.ndarray:
    """Interpolate linearly along the last three axes, slab by slab to save memory.

    Args:
        array: (…, X, Y, Z); of each axis the voxels from `first` on.
        axes: of the target.
        fill: value more than half a voxel outside the whole source; None continues the border.

    Returns:
        A new float32 array (…, X', Y', Z').
    """
    lead, shape = array.shape[:-3], tuple(len(axis.position) for axis in axes)
    out = np.empty((*lead, *shape), dtype=np.float32)
    step = max(1, SLAB_VALUES * shape[0] // max(1, out.size))
    for start in range(0, shape[0], step):
        first = axes[0].part(start, start + step, axes[0].first)
        reach = first.reach
        rows = slice(reach.start - first.first, reach.stop - first.first)
        parts = [first.part(0, step, reach.start), *axes[1:]]
        out[..., start : start + step, :, :] = _interpolate_axes(array[..., rows, :, :], parts)
    for k, axis in enumerate(axes if fill is not None else ()):
        outside = (axis.position < -0.5) | (axis.position > axis.size - 0.5)
        if outside.any():
            np.moveaxis(out, k - 3, 0)[outside] = fill
    return out


def _interpolate_axes(array: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    for k in sorted(range(3), key=lambda k: axes[k].growth):
        axis, place = axes[k], k - 3
        low = axis.low - axis.first
        weight = np.clip(axis.position, 0, axis.size - 1) - axis.low
        weight = weight.astype(np.float32).reshape(-1, *[1] * (2 - k))
        if not weight.any():
            array = array.take(low, place)
            continue
        below = array.take(low, place)
        array = array.take(np.minimum(low + 1, array.shape[place] - 1), place)
        if array.dtype.kind != "f":
            below, array = below.astype(np.float32), array.astype(np.float32)
        # below + weight · (above − below), in place.
        array -= below
        array *= weight
        array += below
    return array


def _take_nearest(
    array: np.ndarray, matrix: np.ndarray, shape: Sequence[int], fill: float | None
) -> np.ndarray:
    """Resample to the nearest voxel where the axes are parallel."""
    outside = []
    for axis, n in enumerate(array.shape):
        position = matrix[axis, axis] * np.arange(shape[axis]) + matrix[axis, 3]
        outside.append((axis, (position < -0.5) | (position > n - 0.5)))
        array = array.take(np.clip(np.round(position), 0, n - 1).astype(int), axis)
    if fill is not None:
        for axis, mask in outside:
            array[(slice(None),) * axis + (mask,)] = fill
    return array
