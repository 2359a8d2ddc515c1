"""Class probabilities on a scan's own grid, some planes at a time, and what is made of them.

Only such a slab is in memory, with all its classes: the classes of a whole large scan would need
many times the scan's own size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr
from torch import Tensor

from crossvox.batch import Triple
from crossvox.data.geometry.axes import are_parallel, interpolate, parallel_axes
from crossvox.data.geometry.grid import Grid, orient, oriented_grid, signed_permutation, voxel_map

SLAB_VOXELS = 200_000
"""Voxels of a slab; more only where a single plane has more."""


@dataclass(frozen=True)
class Slab:
    """Neighbouring planes of a scan.

    Attributes:
        values: (C, X', Y', Z') float32, a channel per class, background first.
        part: where they lie in the scan's (X, Y, Z).
        shape: of the whole scan.
    """

    values: np.ndarray
    part: tuple[slice, slice, slice]
    shape: Triple


Slabs = Iterator[Slab]
SlabCallback = Callable[[Slab], None]
"""Is shown each slab in turn; must not change it."""


@dataclass(frozen=True)
class Traversal:
    """How a scan is passed through: along which axis, and whether from its far end."""

    axis: int
    descending: bool = False

    def reoriented(self, directions: np.ndarray, frame: np.ndarray) -> Traversal:
        """Given along the axes of `directions`, the same way along those of a grid that was
        brought from there to `frame` by `orient`."""
        permutation = signed_permutation(directions, frame)
        axis = int(np.flatnonzero(permutation[self.axis])[0])
        return Traversal(axis, self.descending != bool(permutation[self.axis, axis] < 0))

    def cuts(self, shape: Triple) -> list[tuple[int, int]]:
        """First plane and the one after the last of each slab, in the order of the way."""
        n = shape[self.axis]
        step = max(1, SLAB_VOXELS * n // math.prod(shape))
        cuts = [(start, min(start + step, n)) for start in range(0, n, step)]
        return cuts[::-1] if self.descending else cuts


def native_slabs(
    rows: Iterable[tuple[int, Tensor]], grid: Grid, native: Grid, frame: np.ndarray, way: Traversal
) -> Slabs:
    """Bring channels from the prepared grid to the scan's own.

    Args:
        rows: the prepared grid's planes along the way, each with its (C, …, …) channels.
        grid: of the prepared scan.
        native: of the scan's file.
        frame: orientation of the prepared grids (`Preprocessing.frame`).
        way: through the file's grid.
    """
    oriented = oriented_grid(native, frame)
    matrix = voxel_map(grid, oriented)
    if not are_parallel(matrix, oriented.shape):
        raise ValueError("the prepared grid is not this scan's: their axes are not parallel")
    axes = parallel_axes(matrix, grid.shape, oriented.shape)
    own = way.reoriented(native.directions, frame)
    stream, kept = iter(rows), dict[int, Tensor]()
    for start, stop in way.cuts(native.shape):
        n = native.shape[way.axis]
        mirrored = own.descending != way.descending
        first, last = (n - stop, n - start) if mirrored else (start, stop)
        reach = axes[own.axis].part(first, last, 0).reach
        kept = {index: row for index, row in kept.items() if reach.start <= index < reach.stop}
        while len(kept) < reach.stop - reach.start:
            index, row = next(stream)
            if reach.start <= index < reach.stop:
                kept[index] = row
        planes = [kept[index].numpy() for index in range(reach.start, reach.stop)]
        parts = list(axes)
        parts[own.axis] = axes[own.axis].part(first, last, reach.start)
        # The prepared grid may end half a voxel short of the scan: its border continues.
        values = interpolate(np.stack(planes, own.axis + 1), parts, fill=None)
        # Every axis of `oriented` is one of `native`'s, so this undoes the re-ordering exactly.
        turned = np.stack([orient(v, oriented, native.directions)[0] for v in values])
        part = [slice(0, m) for m in native.shape]
        part[way.axis] = slice(start, stop)
        yield Slab(turned, (part[0], part[1], part[2]), native.shape)


def mean_slabs(streams: Sequence[Slabs]) -> Slabs:
    """The mean of several streams; a single one passes unchanged."""
    if len(streams) == 1:
        yield from streams[0]
        return
    for slabs in zip(*streams, strict=True):
        total = slabs[0].values
        for slab in slabs[1:]:
            total += slab.values
        yield Slab(np.divide(total, len(streams), out=total), slabs[0].part, slabs[0].shape)


def whole(slabs: Iterable[Slab]) -> np.ndarray:
    """(C, X, Y, Z): all slabs together, which is what slabs are there to avoid."""
    found: np.ndarray | None = None
    for slab in slabs:
        if found is None:
            found = np.empty((len(slab.values), *slab.shape), dtype=np.float32)
        found[(slice(None),) + slab.part] = slab.values
    assert found is not None
    return found


def entropy(values: np.ndarray) -> np.ndarray:
    """Predictive entropy −Σ p ln p / ln C of (C, …) probabilities: 0 certain, 1 no idea."""
    total = np.zeros_like(values[0])
    for p in values:
        # Interpolation may leave a rounding error below zero.
        total += entr(np.maximum(p, 0))
    return np.clip(total / math.log(len(values)), 0, 1)


class Entropy:
    """A consumer that keeps the `entropy` of what it is shown.

    Attributes:
        map: (X, Y, Z) float32 in [0, 1], once it has seen a scan.
    """

    map: np.ndarray

    def __call__(self, slab: Slab) -> None:
        """Take the next slab of two or more classes' probabilities."""
        if not hasattr(self, "map") or self.map.shape != slab.shape:
            self.map = np.zeros(slab.shape, dtype=np.float32)
        self.map[slab.part] = entropy(slab.values)
