"""Limits of the plan of a run."""

from __future__ import annotations

from dataclasses import dataclass

from crossvox.errors import UsageError, require

MIN_AXIS = 4
"""Smallest number of voxels along an axis of the deepest feature map."""


@dataclass(frozen=True)
class Budget:
    """Limits of a plan: size of a crop, and the anatomy that it must show.

    Attributes:
        patch_voxels: voxels of a crop; time and memory of a step grow with it.
        coverage: share of the median field of view that a crop must show along each axis of more
            than a few voxels, 0 to 1; the spacing is coarsened until it does.
        levels: largest number of resolution levels of the network.
        patch: crop size in voxels, instead of the planned one.
        spacing: voxel size in mm, instead of the planned one.
        window: lowest and highest HU that a CT is clipped to, instead of the manifest's or the
            planned ones.
    """

    patch_voxels: int = 60_000
    coverage: float = 0.6
    levels: int = 4
    patch: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window[0] >= self.window[1]:
            raise UsageError(f"budget.window {self.window}: the lowest value comes first")
        require("budget.patch_voxels", self.patch_voxels, MIN_AXIS**3)
        require("budget.coverage", self.coverage, 0, 1)
        require("budget.levels", self.levels, 1)
        for name, least in (("patch", MIN_AXIS), ("spacing", 0.01)):
            for value in getattr(self, name) or ():
                require(f"budget.{name}", value, least)
