"""Sizes of scans: what no body has, and what no training scan of a run came near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossvox.data.geometry import Grid, dataset_frame, signed_permutation
from crossvox.data.problems import Problem

LEAST_EXTENT, MOST_EXTENT = 8.0, 4000.0
"""Field of view in mm along its longest axis, of a finger and of a whole body with some air."""
LEAST_SPACING, MOST_SPACING = 0.01, 100.0
"""Voxel edges in mm."""
BODY = 2200.0
"""Length in mm of a whole body."""
REFUSED, WARNED, WARNED_ALL = 5.0, 2.0, 1.5
"""How many times off the training scans' a size is: refused, told, and told of all three axes."""
COARSE = 3.0
"""How many times coarser than all training scans an axis may be without a warning."""
COMPARED = 3
"""Least number of scans that are compared with one another."""

AXES = ("left-right", "back-front", "feet-head")

Axes = tuple[float, float, float]


@dataclass(frozen=True)
class Sizes:
    """Least and largest sizes in mm of a modality's training scans, along each anatomical axis.

    Attributes:
        frame: columns are the world vectors of the axes.
        extent: of the field of view.
        spacing: of the voxel edges.
        filled: some scan has planes at its border that are constant (`data.content`).
        fill_margin: voxels that labels reach into what counts as fill; None = far into it.
    """

    frame: tuple[Axes, Axes, Axes]
    extent: tuple[Axes, Axes]
    spacing: tuple[Axes, Axes]
    filled: bool = True
    fill_margin: int | None = 0

    @classmethod
    def of(cls, grids: Sequence[Grid], frame: np.ndarray) -> Sizes:
        """Measure scans, one at least, along the axes of a (3, 3) frame."""
        extents = [along(frame, grid, grid.extent) for grid in grids]
        spacings = [along(frame, grid, grid.spacing) for grid in grids]
        return cls(
            (_axes(frame[0]), _axes(frame[1]), _axes(frame[2])),
            (_axes(np.min(extents, axis=0)), _axes(np.max(extents, axis=0))),
            (_axes(np.min(spacings, axis=0)), _axes(np.max(spacings, axis=0))),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sizes:
        """Make sizes of plain values."""
        x, y, z = map(_axes, values["frame"])
        extent, spacing = ((_axes(a), _axes(b)) for a, b in (values["extent"], values["spacing"]))
        return cls((x, y, z), extent, spacing, bool(values["filled"]), values["fill_margin"])


def along(frame: np.ndarray, grid: Grid, values: np.ndarray) -> np.ndarray:
    """Return a grid's (3,) values along the axes of a frame that lie nearest to its own."""
    return np.abs(signed_permutation(grid.directions, frame)).T @ values


def extent_problems(grid: Grid, seen: Sizes | None = None) -> list[Problem]:
    """List why a scan can be of no body, or of none that a run was trained on.

    Args:
        grid: of the scan.
        seen: sizes of the training scans of its modality; None = unknown.
    """
    extent = float(grid.extent.max())
    unit = "correct the unit (xyzt_units) or the voxel size in the header, or convert it again"
    if not LEAST_EXTENT <= extent <= MOST_EXTENT:
        found = f"a field of view of {extent:.3g} mm"
        expected = f"{LEAST_EXTENT:g} to {MOST_EXTENT:g} mm along the longest axis"
        return [Problem.error(found, expected, unit)]
    for edge in (float(grid.spacing.min()), float(grid.spacing.max())):
        if not LEAST_SPACING <= edge <= MOST_SPACING:
            expected = f"{LEAST_SPACING:g} to {MOST_SPACING:g} mm"
            return [Problem.error(f"voxels of {edge:.4g} mm", expected, unit)]
    return [] if seen is None else _unseen(grid, seen, unit)


def compare_extents(grids: Sequence[Grid]) -> list[Problem | None]:
    """Return for each scan of one modality a warning if its size is far from the others'.

    Each is compared with the median of all, along each axis of their common orientation.
    """
    if len(grids) < COMPARED:
        return [None] * len(grids)
    frame = dataset_frame(grids)
    extent, spacing = (
        _axes(np.median([along(frame, grid, getattr(grid, name)) for grid in grids], axis=0))
        for name in ("extent", "spacing")
    )
    x, y, z = map(_axes, frame)
    usual = Sizes((x, y, z), (extent, extent), (spacing, spacing))
    fix = "look at the scan; if it is no part or other view, correct the voxel size in its header"
    found = [_Compared.of(grid, usual).problem("the modality's median", fix) for grid in grids]
    return [problem and replace(problem, severity="warning") for problem in found]


@dataclass(frozen=True)
class _Compared:
    """Sizes of one scan along the axes of others, and how many times off these each one is.

    A part of a scan has few voxels of an ordinary size. Where voxels are far finer than any other
    scan's as well, the unit or the voxel size is wrong.
    """

    seen: Sizes
    voxels: np.ndarray
    extent: np.ndarray
    spacing: np.ndarray
    smaller: np.ndarray
    finer: np.ndarray
    larger: np.ndarray
    coarser: np.ndarray

    @classmethod
    def of(cls, grid: Grid, seen: Sizes) -> _Compared:
        """Compare a scan's grid with the sizes of others."""
        frame = np.array(seen.frame)
        extent, spacing = along(frame, grid, grid.extent), along(frame, grid, grid.spacing)
        least, most = np.array(seen.extent)
        finest, coarsest = np.array(seen.spacing)
        return cls(
            seen,
            along(frame, grid, np.array(grid.shape)),
            extent,
            spacing,
            smaller=least / extent,
            finer=finest / spacing,
            larger=extent / most,
            coarser=spacing / coarsest,
        )

    def is_wrong(self) -> bool:
        """Return whether the unit or the voxel size must be wrong."""
        off = np.maximum(
            np.minimum(self.smaller, self.finer), np.minimum(self.larger, self.coarser)
        )
        too_long = (self.larger > REFUSED) & (self.extent > BODY)
        too_coarse = self.spacing.max() > REFUSED * max(self.seen.spacing[1])
        return bool((off > REFUSED).any() or too_long.any() or too_coarse)

    def is_unusual(self) -> bool:
        """Return whether a user should look at the result."""
        all_off = max(self.smaller.min(), self.larger.min()) > WARNED_ALL
        off = max(self.smaller.max(), self.larger.max()) > WARNED
        return bool(off or all_off or self.coarser.max() > COARSE)

    def problem(self, others: str, fix: str) -> Problem | None:
        """Describe the axis that is furthest off; None if none is."""
        if not self.is_wrong() and not self.is_unusual():
            return None
        factors = {"smaller": self.smaller, "larger": self.larger}
        if max(factor.max() for factor in factors.values()) <= WARNED_ALL:
            factors = {"coarser": self.coarser}
        word = max(factors, key=lambda key: factors[key].max())
        axis = int(factors[word].argmax())
        name = AXES[int(np.abs(np.array(self.seen.frame)[:, axis]).argmax())]
        found = (
            f"a field of view of {self.extent[axis]:.4g} mm {name} "
            f"({round(self.voxels[axis])} voxels of {self.spacing[axis]:.4g} mm), "
            f"{factors[word][axis]:.2g} times {word} than {others}"
        )
        extent, spacing = (
            " to ".join(dict.fromkeys(f"{ends[axis]:.4g}" for ends in pair))
            for pair in (self.seen.extent, self.seen.spacing)
        )
        expected = f"near {extent} mm, in voxels of {spacing} mm"
        kind = Problem.error if self.is_wrong() else Problem.warning
        return kind(found, expected, fix)


def _unseen(grid: Grid, seen: Sizes, fix: str) -> list[Problem]:
    compared = _Compared.of(grid, seen)
    if compared.is_wrong():
        fix = f"{fix}, or train on scans of this size"
    else:
        fix = f"look at the result; if it is wrong, {fix}"
    problem = compared.problem("the training scans", fix)
    return [] if problem is None else [problem]


def _axes(values: Sequence[float] | np.ndarray) -> Axes:
    x, y, z = (round(float(value), 5) for value in values)
    return x, y, z
