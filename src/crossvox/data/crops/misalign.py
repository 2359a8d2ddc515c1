"""A known misalignment of one modality, to measure how robust a method is."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.data.geometry import Grid
from crossvox.errors import UsageError, require


@dataclass(frozen=True)
class Misalign:
    """A rigid motion of one modality's scans, fixed for each case; the default is none.

    It changes the grid of a scan, not its voxels, and the label moves with the scan. The
    subject's other scans no longer lie over it, so a run that trains on them does not count as
    registered.

    Attributes:
        modality: of the scans to move; empty = the data set's last one.
        shift: mm, in a random direction for each case.
        rotate: degrees about the scan's centre, around a random axis for each case.
        seed: of the directions and axes.
    """

    modality: str = ""
    shift: float = 0.0
    rotate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require("misalign.shift", self.shift, 0)
        require("misalign.rotate", self.rotate, 0, 180)
        require("misalign.seed", self.seed, 0)

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotate)

    def motion(self, case: str, grid: Grid) -> np.ndarray:
        """Return the (4, 4) rigid map of world space in mm for a case's scan on `grid`."""
        # Python's own hash of a string differs from process to process.
        rng = np.random.default_rng([self.seed, zlib.crc32(case.encode())])
        direction, axis = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
        turn = _rotation(axis, np.radians(self.rotate))
        motion = np.eye(4)
        motion[:3, :3] = turn
        motion[:3, 3] = grid.centre - turn @ grid.centre + self.shift * direction
        return motion

    def moved_modality(self, modalities: Sequence[str]) -> str | None:
        """Return the modality to move; None without a motion, `UsageError` if there is no such."""
        moved = self.modality or modalities[-1]
        if not self:
            return None
        if moved not in modalities:
            raise UsageError(
                f"misalign.modality: no modality '{moved}'; choose from {', '.join(modalities)}"
            )
        return moved

    def move(self, case: str, grid: Grid) -> Grid:
        """Return the grid of a case's scan after the motion."""
        return Grid(grid.shape, self.motion(case, grid) @ grid.affine)


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the (3, 3) rotation about a unit vector, by Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
