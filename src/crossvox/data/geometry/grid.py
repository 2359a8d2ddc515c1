"""Grids in world space: orientation of a data set, target grids, resampling between grids."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional as F

from crossvox.data.geometry.axes import are_parallel, interpolate, parallel_axes

Mode = Literal["linear", "nearest"]
SLAB_VOXELS = 4_000_000


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an array lie.

    Attributes:
        shape: voxels per axis.
        affine: (4, 4) float64, voxel index → world position in mm (RAS+, voxel centres).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel size in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def directions(self) -> np.ndarray:
        """(3, 3), column k is the unit world vector of array axis k."""
        return self.affine[:3, :3] / self.spacing

    @property
    def extent(self) -> np.ndarray:
        """(3,) size of the field of view in mm, along the array axes."""
        return self.spacing * np.array(self.shape)

    @property
    def centre(self) -> np.ndarray:
        """(3,) world position in mm of the middle of the field of view."""
        return self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]

    def holds(self, position: np.ndarray) -> bool:
        """Whether a world position in mm, (4,) with a 1 at its end, lies in the field of view."""
        index = (np.linalg.inv(self.affine) @ position)[:3]
        return bool(((index >= -0.5) & (index <= np.array(self.shape) - 0.5)).all())

    def to_dict(self) -> dict[str, list]:
        """Plain values, ready for JSON."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_dict(cls, values: dict) -> Grid:
        """The inverse of `to_dict`."""
        return cls(tuple(values["shape"]), np.array(values["affine"], dtype=np.float64))


def dataset_frame(grids: Sequence[Grid]) -> np.ndarray:
    """The common orientation of a set of scans, for arrays to be re-ordered to.

    Oblique stacks have no closest anatomical axes: two short-axis hearts that differ by a few
    degrees are stored as LSP and PSR, and bringing both to RAS puts their slices on different
    axes. So the frame is the data set's own mean orientation, its third axis along the mean slice
    normal. Where that is nearly (15°) an anatomical orientation, it is that orientation.

    Args:
        grids: of the training scans, in a fixed order.

    Returns:
        (3, 3), columns are unit world vectors of the array axes.
    """
    # Of the thickest slices the plane is known best.
    frame = _through_plane_last(max(grids, key=lambda g: g.spacing.max() / np.median(g.spacing)))
    for _ in range(3):
        aligned = [g.directions @ signed_permutation(g.directions, frame) for g in grids]
        u, _, vt = np.linalg.svd(np.mean(aligned, axis=0))
        frame = u @ vt
    frame = _canonical(frame)
    nearest = np.sign(frame) * (np.abs(frame) > np.cos(np.pi / 4))
    is_anatomical = (np.abs(frame).max(axis=0) > np.cos(np.radians(15))).all()
    return nearest if is_anatomical else frame


def signed_permutation(directions: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The re-ordering and mirroring of array axes that brings `directions` closest to `frame`.

    Returns:
        (3, 3) signed permutation P such that `directions @ P` ≈ `frame`.
    """
    cosines = directions.T @ frame
    best = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(abs(cosines[source, axis]) for axis, source in enumerate(order)),
    )
    result = np.zeros((3, 3))
    for axis, source in enumerate(best):
        result[source, axis] = 1.0 if cosines[source, axis] >= 0 else -1.0
    return result


def orient(array: np.ndarray, grid: Grid, frame: np.ndarray) -> tuple[np.ndarray, Grid]:
    """Re-order and mirror the axes of `array` towards `frame`; a view, no voxel changes value."""
    permutation = signed_permutation(grid.directions, frame)
    order = [int(np.flatnonzero(permutation[:, axis])[0]) for axis in range(3)]
    flipped = [axis for axis in range(3) if permutation[order[axis], axis] < 0]
    shape = tuple(grid.shape[source] for source in order)
    inner = np.eye(4)
    inner[:3, :3] = permutation
    for axis in flipped:
        inner[:3, 3] -= permutation[:, axis] * (shape[axis] - 1)
    view = np.flip(array.transpose(order), tuple(flipped))
    return view, Grid(shape, grid.affine @ inner)  # type: ignore[arg-type]


def oriented_grid(grid: Grid, frame: np.ndarray) -> Grid:
    """The grid that `orient` brings an array to, without one."""
    return orient(np.broadcast_to(np.int8(0), grid.shape), grid, frame)[1]


def respaced(grid: Grid, spacing: Sequence[float]) -> Grid:
    """A grid over the same field of view with (nearly) the given spacing in mm.

    The first voxel's outer corner stays where it is; the last voxel may reach up to half a voxel
    beyond or short of the field of view.
    """
    scale = np.asarray(spacing, dtype=np.float64) / grid.spacing
    shape = np.maximum(1, np.round(np.array(grid.shape) / scale)).astype(int)
    inner = np.diag([*scale, 1.0])
    inner[:3, 3] = (scale - 1) / 2
    return Grid(tuple(int(n) for n in shape), grid.affine @ inner)  # type: ignore[arg-type]


def voxel_map(source: Grid, target: Grid) -> np.ndarray:
    """(4, 4) map from voxel indices of `target` to voxel indices of `source`."""
    return np.linalg.inv(source.affine) @ target.affine


def smooth_for(array: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Blur along the axes that will be sampled more coarsely by `factors`, against aliasing."""
    for axis, factor in enumerate(factors):
        if factor > 1.2:
            array = gaussian_filter1d(
                array, (factor - 1) / 2, axis=axis, mode="nearest", truncate=3.0
            )
    return array


def resample(
    array: np.ndarray,
    source: Grid,
    target: Grid,
    mode: Mode = "linear",
    fill: float | None = 0.0,
) -> np.ndarray:
    """Values of `array` (on `source`) at the voxels of `target`.

    Args:
        array: (X, Y, Z) on `source`.
        source: grid of `array`.
        target: grid asked for, at any orientation.
        mode: `linear` or `nearest`.
        fill: value outside the source's field of view; None continues the border voxels.

    Returns:
        Array of `target.shape`, float32 for `linear`, the input's type for `nearest`.
    """
    matrix = voxel_map(source, target)
    if are_parallel(matrix, target.shape):
        if mode == "nearest":
            return _take_nearest(array, matrix, target.shape, fill)
        return interpolate(array, parallel_axes(matrix, array.shape, target.shape), fill)
    linear = matrix[:3, :3]
    out = np.empty(target.shape, dtype=np.float32 if mode == "linear" else array.dtype)
    step = max(1, SLAB_VOXELS // (target.shape[1] * target.shape[2]))
    volume = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    for start in range(0, target.shape[0], step):
        stop = min(start + step, target.shape[0])
        shifted = matrix.copy()
        shifted[:3, 3] += linear[:, 0] * start
        out[start:stop] = sample(
            volume, shifted, (stop - start, *target.shape[1:]), mode, fill
        ).numpy()
    return out


def sample(
    volume: torch.Tensor,
    matrix: np.ndarray,
    shape: Sequence[int],
    mode: Mode = "linear",
    fill: float | None = 0.0,
) -> torch.Tensor:
    """Values of `volume` at `matrix @ index` for every index of `shape`.

    Args:
        volume: (X, Y, Z) float32.
        matrix: (4, 4), output voxel → input voxel.
        shape: of the output.
        mode: `linear` or `nearest`.
        fill: value more than half a voxel outside `volume`; None continues the border.

    Returns:
        Float32 tensor of `shape`.
    """
    # grid_sample's coordinates run from −1 to 1 over the outer voxel edges, last array axis
    # first: u = (2 i + 1) / n − 1.
    size, given = np.array(shape, dtype=float), np.array(volume.shape, dtype=float)
    linear = matrix[:3, :3] * size / given[:, None]
    middle = (2 * (matrix[:3, :3] @ ((size - 1) / 2) + matrix[:3, 3]) + 1) / given - 1
    # Summed per axis; affine_grid would multiply a matrix with every voxel's coordinates.
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


def _take_nearest(
    array: np.ndarray, matrix: np.ndarray, shape: Sequence[int], fill: float | None
) -> np.ndarray:
    """`resample` to the nearest voxel where the axes are parallel."""
    outside = []
    for axis, n in enumerate(array.shape):
        position = matrix[axis, axis] * np.arange(shape[axis]) + matrix[axis, 3]
        outside.append((axis, (position < -0.5) | (position > n - 0.5)))
        array = array.take(np.clip(np.round(position), 0, n - 1).astype(int), axis)
    if fill is not None:
        for axis, mask in outside:
            array[(slice(None),) * axis + (mask,)] = fill
    return array


def _through_plane_last(grid: Grid) -> np.ndarray:
    """`grid`'s directions, its coarsest axis last, the others in anatomical order."""
    directions, spacing = grid.directions, grid.spacing
    last = int(np.argmax(spacing)) if spacing.max() > 1.2 * np.median(spacing) else None
    if last is None:
        return directions @ signed_permutation(directions, np.eye(3))
    rest = [k for k in range(3) if k != last]
    rest.sort(key=lambda k: int(np.argmax(np.abs(directions[:, k]))))
    return directions[:, [*rest, last]]


def _canonical(frame: np.ndarray) -> np.ndarray:
    """The same axes, each pointing along its dominant positive world direction."""
    dominant = frame[np.abs(frame).argmax(axis=0), range(3)]
    return frame * np.where(dominant < 0, -1.0, 1.0)
