"""Class probabilities on a scan's own grid, one slab of neighbouring planes at a time.

All classes of a whole large scan would take many times the scan's own memory, so only one slab
exists at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr
from torch import Tensor

from crossvox.batch import Triple
from crossvox.data.geometry import Grid, orient, orient_grid, voxel_map
from crossvox.data.geometry.resampling import are_parallel, interpolate, parallel_axes
from crossvox.inference.sliding_window import Traversal

SLAB_VOXELS = 200_000
"""Voxels of a slab; more only if a single plane has more."""


@dataclass(frozen=True)
class Slab:
    """Neighbouring planes of a scan.

    Attributes:
        values: (C, X', Y', Z') float32, one channel per class, background first.
        part: where the planes lie in the scan's (X, Y, Z).
        shape: of the whole scan.
    """

    values: np.ndarray
    part: tuple[slice, slice, slice]
    shape: Triple

    def split(self, count: int) -> list[Slab]:
        """Return the slabs of `count` maps whose channels follow each other in this one."""
        return [Slab(values, self.part, self.shape) for values in np.split(self.values, count)]


SlabCallback = Callable[[Slab], None]
"""Is called with each slab in turn; must not change it."""


def native_slabs(
    planes: Iterable[tuple[int, Tensor]],
    grid: Grid,
    native: Grid,
    frame: np.ndarray,
    traversal: Traversal,
) -> Iterator[Slab]:
    """Resample channels from the prepared grid to the scan's own grid.

    Args:
        planes: index and (C, …, …) channels of the prepared grid's planes, in the order of
            `traversal`.
        grid: of the prepared scan.
        native: of the scan's file.
        frame: (3, 3) orientation of the prepared grids (`Preprocessing.frame`).
        traversal: order of the planes of `native`.

    Raises:
        ValueError: the axes of the two grids are not parallel.
    """
    oriented = orient_grid(native, frame)
    matrix = voxel_map(grid, oriented)
    if not are_parallel(matrix, oriented.shape):
        raise ValueError("the prepared grid is not this scan's: their axes are not parallel")
    axes = parallel_axes(matrix, grid.shape, oriented.shape)
    prepared = traversal.reoriented(native.directions, frame)
    mirrored = prepared.descending != traversal.descending
    n = native.shape[traversal.axis]
    stream, kept = iter(planes), dict[int, Tensor]()
    for start, stop in _slab_bounds(native.shape, traversal):
        first, last = (n - stop, n - start) if mirrored else (start, stop)
        reach = axes[prepared.axis].part(first, last, 0).reach
        kept = {index: plane for index, plane in kept.items() if reach.start <= index < reach.stop}
        while len(kept) < reach.stop - reach.start:
            index, plane = next(stream)
            if reach.start <= index < reach.stop:
                kept[index] = plane
        source = [kept[index].numpy() for index in range(reach.start, reach.stop)]
        parts = list(axes)
        parts[prepared.axis] = axes[prepared.axis].part(first, last, reach.start)
        # The prepared grid may end half a voxel short of the scan, so its border is continued.
        values = interpolate(np.stack(source, prepared.axis + 1), parts, fill=None)
        # `oriented` is `native` with re-ordered axes: this restores their order exactly.
        values = np.stack([orient(v, oriented, native.directions)[0] for v in values])
        part = [slice(0, m) for m in native.shape]
        part[traversal.axis] = slice(start, stop)
        yield Slab(values, (part[0], part[1], part[2]), native.shape)


def mean_slabs(streams: Sequence[Iterator[Slab]]) -> Iterator[Slab]:
    """Average several streams of slabs of one scan; a single stream passes unchanged."""
    if len(streams) == 1:
        yield from streams[0]
        return
    for slabs in zip(*streams, strict=True):
        total = slabs[0].values
        for slab in slabs[1:]:
            total += slab.values
        yield Slab(np.divide(total, len(streams), out=total), slabs[0].part, slabs[0].shape)


def assemble(slabs: Iterable[Slab]) -> np.ndarray:
    """Join all slabs of a scan into one (C, X, Y, Z) array, for scans that are small enough."""
    joined: np.ndarray | None = None
    for slab in slabs:
        if joined is None:
            joined = np.empty((len(slab.values), *slab.shape), dtype=np.float32)
        joined[(slice(None),) + slab.part] = slab.values
    assert joined is not None  # a scan has at least one plane
    return joined


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Compute the normalised predictive entropy −Σ p ln p / ln C.

    Args:
        probabilities: (C, …), C > 1.

    Returns:
        (…) in [0, 1]: 0 where one class is certain, 1 where all classes are equally probable.
    """
    total = np.zeros_like(probabilities[0])
    for p in probabilities:
        # Interpolation may leave a rounding error below zero.
        total += entr(np.maximum(p, 0))
    return np.clip(total / math.log(len(probabilities)), 0, 1)


def _slab_bounds(shape: Triple, traversal: Traversal) -> list[tuple[int, int]]:
    """First plane and the one after the last of each slab, in the traversal's order."""
    n = shape[traversal.axis]
    step = max(1, SLAB_VOXELS * n // math.prod(shape))
    bounds = [(start, min(start + step, n)) for start in range(0, n, step)]
    return bounds[::-1] if traversal.descending else bounds
