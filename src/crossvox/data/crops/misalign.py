"""A known misalignment of one modality, imposed on scans to see what it does to a method."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from crossvox.data.geometry import Grid
from crossvox.data.prepare.store import StoredArray
from crossvox.errors import require


@dataclass(frozen=True)
class Misalign:
    """A rigid motion of one modality's scans, fixed for each case; 0 and 0 leave all in place.

    Only the scans' place in world space changes: what a scan shows, and its label, stay as they
    are, but the subject's other scans no longer lie over it.

    Attributes:
        modality: whose scans are moved; empty = the data set's last one.
        shift: mm, in a direction of its own for each case.
        rotate: degrees about the scan's centre, about an axis of its own for each case.
        seed: another seed, other directions and axes.
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
        """(4, 4) rigid map of world space, in mm, for the scan of a case that lies on `grid`."""
        # Not Python's hash of a text, which differs from process to process.
        rng = np.random.default_rng([self.seed, zlib.crc32(case.encode())])
        direction, axis = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
        turn = _rotation(axis, np.radians(self.rotate))
        motion = np.eye(4)
        motion[:3, :3] = turn
        motion[:3, 3] = grid.centre - turn @ grid.centre + self.shift * direction
        return motion

    def stored(self, case: str, entry: StoredArray) -> StoredArray:
        """A prepared scan of the moved modality, at its new place."""
        return entry.at(Grid(entry.shape, self.motion(case, entry.grid) @ entry.grid.affine))


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) rotation about a unit vector (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
