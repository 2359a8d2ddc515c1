"""Resampling between grids whose axes are parallel: one axis at a time, any part on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SLAB_VALUES = 4_000_000
"""Values that are resampled at a time; what is needed on the way there is a few times as much."""


@dataclass(frozen=True)
class Axis:
    """How the voxels along one axis of a target lie between those of its source.

    Attributes:
        position: (N,) float64, in voxels of the source; may lie outside of it.
        given: number of the source's voxels; those at hand may be a part of them.
        first: the first voxel of the source that is at hand.
        shrinking: target voxels per source voxel of the whole axis. The most shrinking axis is
            resampled first, whatever part of it is asked for, so that parts equal the whole bit
            for bit.
    """

    position: np.ndarray
    given: int
    first: int
    shrinking: float

    @property
    def low(self) -> np.ndarray:
        """(N,) the lower neighbour of each position, counted in the whole source."""
        inside = np.clip(self.position, 0, self.given - 1)
        return np.minimum(inside.astype(int), max(self.given - 2, 0))

    @property
    def reach(self) -> slice:
        """The source's voxels that the positions lie between."""
        low = self.low
        return slice(int(low.min()), int(min(low.max() + 2, self.given)))

    def part(self, start: int, stop: int, first: int) -> Axis:
        """Target voxels `start` … `stop`, of a source that is at hand from voxel `first` on."""
        return Axis(self.position[start:stop], self.given, first, self.shrinking)


def parallel_axes(matrix: np.ndarray, given: Sequence[int], wanted: Sequence[int]) -> list[Axis]:
    """The axes of a target of `wanted` voxels in a source of `given` ones.

    Args:
        matrix: (4, 4), voxel of the target → voxel of the source; its linear part is diagonal.
        given: shape of the source.
        wanted: shape of the target.
    """
    return [
        Axis(matrix[k, k] * np.arange(wanted[k]) + matrix[k, 3], given[k], 0, wanted[k] / given[k])
        for k in range(3)
    ]


def are_parallel(matrix: np.ndarray, wanted: Sequence[int]) -> bool:
    """Whether no voxel of the target is off by turning by more than a ten-thousandth of one."""
    linear = matrix[:3, :3]
    off = linear - np.diag(np.diag(linear))
    return bool(np.abs(off).max() < 1e-4 / max(wanted))


def interpolate(array: np.ndarray, axes: Sequence[Axis], fill: float | None) -> np.ndarray:
    """Linear interpolation along the last three axes, in slabs so that little is in memory twice.

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
        out[..., start : start + step, :, :] = _passes(array[..., rows, :, :], parts)
    for k, axis in enumerate(axes if fill is not None else ()):
        outside = (axis.position < -0.5) | (axis.position > axis.given - 0.5)
        if outside.any():
            np.moveaxis(out, k - 3, 0)[outside] = fill
    return out


def _passes(array: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    for k in sorted(range(3), key=lambda k: axes[k].shrinking):
        axis, place = axes[k], k - 3
        low = axis.low - axis.first
        weight = np.clip(axis.position, 0, axis.given - 1) - axis.low
        weight = weight.astype(np.float32).reshape(-1, *[1] * (2 - k))
        if not weight.any():
            array = array.take(low, place)
            continue
        below = array.take(low, place)
        array = array.take(np.minimum(low + 1, array.shape[place] - 1), place)
        if array.dtype.kind != "f":
            below, array = below.astype(np.float32), array.astype(np.float32)
        # below + weight · (above − below), without an array for each of these.
        array -= below
        array *= weight
        array += below
    return array
