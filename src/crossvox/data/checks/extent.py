"""Sizes of scans: what no body has, and what no training scan of a run came near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossvox.data.geometry import Grid
from crossvox.data.problems import Problem

LEAST_EXTENT, MOST_EXTENT = 8.0, 4000.0
"""Field of view in mm along its longest axis, of a finger and of a whole body with some air."""
MOST_SPACING = 100.0
"""Largest voxel edge in mm."""
REFUSED, WARNED = 5.0, 2.0
"""How many times smaller or larger than all training scans a field of view is."""
COARSE = 3.0
"""How many times coarser than all training scans a scan may be without a warning."""


PAIRS = ("extent", "finest", "coarsest")


@dataclass(frozen=True)
class Sizes:
    """Least and largest sizes in mm of a modality's training scans.

    Attributes:
        extent: of the field of view along its longest axis.
        finest: of the shortest voxel edge.
        coarsest: of the longest voxel edge.
        filled: some scan has planes at its border that are constant (`values.content_box`).
    """

    extent: tuple[float, float]
    finest: tuple[float, float]
    coarsest: tuple[float, float]
    filled: bool = True

    @classmethod
    def of(cls, grids: Sequence[Grid]) -> Sizes:
        """Measure scans, one at least."""

        def ends(values: Sequence[float]) -> tuple[float, float]:
            return round(float(min(values)), 3), round(float(max(values)), 3)

        return cls(
            ends([grid.extent.max() for grid in grids]),
            ends([grid.spacing.min() for grid in grids]),
            ends([grid.spacing.max() for grid in grids]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sizes:
        """Invert `to_dict`."""
        extent, finest, coarsest = ((float(a), float(b)) for a, b in map(values.__getitem__, PAIRS))
        return cls(extent, finest, coarsest, bool(values["filled"]))


def extent_problems(grid: Grid, seen: Sizes | None = None) -> list[Problem]:
    """List why a scan can be of no body, or of none that a run was trained on.

    Args:
        grid: of the scan.
        seen: sizes of the training scans of its modality; None = unknown.
    """
    extent, edge = float(grid.extent.max()), float(grid.spacing.max())
    unit = "correct the unit (xyzt_units) or the voxel size in the header, or convert it again"
    if not LEAST_EXTENT <= extent <= MOST_EXTENT:
        found = f"a field of view of {extent:.3g} mm"
        expected = f"{LEAST_EXTENT:g} to {MOST_EXTENT:g} mm along the longest axis"
        return [Problem.error(found, expected, unit)]
    if edge > MOST_SPACING:
        return [Problem.error(f"voxels of {edge:.4g} mm", f"at most {MOST_SPACING:g} mm", unit)]
    return [] if seen is None else _unseen(grid, seen, unit)


def _unseen(grid: Grid, seen: Sizes, fix: str) -> list[Problem]:
    extent = float(grid.extent.max())
    least, most = seen.extent
    factor = max(least / extent, extent / most)
    if factor > WARNED:
        found = f"a field of view of {extent:.4g} mm, {factor:.2g} times off the training scans'"
        expected = f"near {least:.4g} to {most:.4g} mm"
        if factor > REFUSED:
            return [Problem.error(found, expected, f"{fix}, or train on scans of this size")]
        return [Problem.warning(found, expected, f"look at the result; if it is wrong, {fix}")]
    for name, edge, (_, coarsest) in (
        ("finest", float(grid.spacing.min()), seen.finest),
        ("coarsest", float(grid.spacing.max()), seen.coarsest),
    ):
        if edge > COARSE * coarsest:
            found = f"voxels of {edge:.4g} mm along the {name} axis"
            expected = f"at most {coarsest:.4g} mm, as the training scans have"
            return [Problem.warning(found, expected, "look at the result; it may be coarse")]
    return []
