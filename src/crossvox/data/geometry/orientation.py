"""The common orientation of a data set, and arrays re-ordered towards it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from crossvox.data.geometry.grid import Grid


def dataset_frame(grids: Sequence[Grid]) -> np.ndarray:
    """Compute the common orientation of a set of scans.

    Oblique stacks have no closest anatomical axes. Two short-axis hearts that differ by a few
    degrees are stored as LSP and PSR, and bringing both to RAS puts their slices on different
    axes. So the frame is the mean orientation of the data set, its third axis along the mean
    slice normal. If it lies within 15° of an anatomical orientation, it is that orientation.

    Args:
        grids: of the training scans, in a fixed order.

    Returns:
        (3, 3), columns are unit world vectors of the array axes.
    """
    # The scan with the thickest slices knows best which plane the set shows.
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
    """Return the re-ordering and mirroring of array axes that brings them closest to `frame`.

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


def orient_grid(grid: Grid, frame: np.ndarray) -> Grid:
    """Return the grid that `orient` gives an array on `grid`."""
    return orient(np.broadcast_to(np.int8(0), grid.shape), grid, frame)[1]


def _through_plane_last(grid: Grid) -> np.ndarray:
    """Return a grid's directions, its coarsest axis last and the others in anatomical order."""
    directions, spacing = grid.directions, grid.spacing
    last = int(np.argmax(spacing)) if spacing.max() > 1.2 * np.median(spacing) else None
    if last is None:
        return directions @ signed_permutation(directions, np.eye(3))
    rest = [k for k in range(3) if k != last]
    rest.sort(key=lambda k: int(np.argmax(np.abs(directions[:, k]))))
    return directions[:, [*rest, last]]


def _canonical(frame: np.ndarray) -> np.ndarray:
    """Return the same axes, each pointing along its dominant positive world direction."""
    dominant = frame[np.abs(frame).argmax(axis=0), range(3)]
    return frame * np.where(dominant < 0, -1.0, 1.0)
