"""A synthetic abdomen as a function of space: which tissue lies at a point.

Everything is analytic (ellipsoids, tubes, thresholds of smooth random fields), so one subject can
be scanned on any grid, at any orientation and slice thickness. Coordinates are RAS mm. The shapes
are invented and only resemble an abdomen.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from scipy.spatial.transform import Rotation

Points = np.ndarray
"""(3, N) float32, mm."""

WAVES = 10
"""Plane waves of a `SmoothField`."""


class Tissue(IntEnum):
    """Tissue at a point; the last five make up the labelled organs."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    LUNG = 3
    BONE = 4
    MARROW = 5
    DISC = 6
    CSF = 7
    ARTERY = 8
    VEIN = 9
    GLAND = 10
    BOWEL = 11
    CONTENT = 12
    GAS = 13
    BILE = 14
    LIVER = 15
    SPLEEN = 16
    LEFT_KIDNEY = 17
    RIGHT_KIDNEY = 18
    LIVER_VEIN = 19


class SmoothField:
    """A stationary random function of space: a sum of plane waves with random phases.

    Values have mean 0 and variance 1. `length` (mm) is the distance over which they change.
    """

    def __init__(self, rng: np.random.Generator, length: float) -> None:
        self.waves = (rng.standard_normal((WAVES, 3)) / length).astype(np.float32)
        self.phases = rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32)

    def __call__(self, points: Points) -> np.ndarray:
        """Return the values (N,) float32 at `points`."""
        total = np.zeros(points.shape[1], np.float32)
        for wave, phase in zip(self.waves, self.phases, strict=True):
            total += np.cos(wave @ points + phase)
        return total * np.float32(np.sqrt(2 / len(self.phases)))


def rotation(degrees: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation about x, then y, then z."""
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


class Organ:
    """An ellipsoid of random position, size and tilt; `level` is 1 on its surface."""

    def __init__(
        self,
        rng: np.random.Generator,
        centre: Sequence[float],
        radii: Sequence[float],
        *,
        tilt: Sequence[float] = (0, 0, 0),
        spread: float = 0.08,
    ) -> None:
        self.centre = np.asarray(centre) + rng.normal(0, 5, 3)
        size = np.exp(rng.normal(0, spread) + rng.normal(0, spread / 2, 3))
        self.radii = np.asarray(radii) * size
        self.axes = rotation(np.asarray(tilt) + rng.normal(0, 5, 3))

    def level(self, points: Points, offset: Sequence[float] = (0, 0, 0)) -> np.ndarray:
        """Return the distance from the centre (moved by `offset` mm) in radii, (N,)."""
        matrix = (self.axes.T / self.radii[:, None]).astype(np.float32)
        centre = (self.centre + offset).astype(np.float32)
        return np.linalg.norm(matrix @ (points - centre[:, None]), axis=0)


def _tube(points: Points, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Return the level of an elliptic cylinder along z, (N,); 1 on its surface."""
    return np.hypot((points[0] - x) / rx, (points[1] - y) / ry)


def _merge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the smooth union of two levels."""
    return -np.logaddexp(-8 * a, -8 * b) / 8


class Abdomen:
    """The abdomen of one synthetic person: random size, fat, pose, organs and deformation."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.size = np.exp(rng.normal(0, 0.045, 3))
        self.fat = rng.uniform(7, 24)
        self.belly = rng.uniform(0, 10)
        self.pose = rotation(rng.normal(0, 4, 3))
        self.shift = rng.normal(0, 5, 3)
        self.bend = [SmoothField(rng, 65) for _ in range(3)]
        self.bend_mm = rng.uniform(4, 8)
        self.dome = rng.normal(0, 6)
        self.disc = rng.uniform(0, 34)
        self.rib = rng.uniform(0, 30)
        self.loops, self.filling = SmoothField(rng, 13), SmoothField(rng, 25)
        self.veins = SmoothField(rng, 16), SmoothField(rng, 16)
        self.organs = _draw_organs(rng)

    def tissues(self, world: Points) -> np.ndarray:
        """Return the `Tissue` of every point (RAS mm relative to the subject), (N,) uint8."""
        points = self._canonical(world)
        cavity = (np.abs(points[0]) / 115) ** 2.4 + (np.abs(points[1]) / 76) ** 2.4
        cavity = cavity ** np.float32(1 / 2.4)
        # Some subjects have a belly: the wall is thicker in front.
        front = self.belly * np.clip(points[1] / 76, 0, 1)
        outside = (cavity - 1) * 92 - front
        tissue = np.zeros(points.shape[1], np.uint8)
        inside = np.flatnonzero(outside < 9 + self.fat)
        tissue[inside] = self._inside(points[:, inside], cavity[inside], outside[inside])
        return tissue

    def _canonical(self, world: Points) -> Points:
        matrix = (self.pose.T / self.size[:, None]).astype(np.float32)
        points = matrix @ (world - self.shift.astype(np.float32)[:, None])
        bend = np.stack([field(points) for field in self.bend])
        return points + np.float32(self.bend_mm) * bend

    def _inside(self, points: Points, cavity: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """Paint tissue by tissue; later ones cover earlier ones."""
        tissue = np.full(points.shape[1], Tissue.FAT, np.uint8)
        tissue[(outside > 0) & (outside < 9)] = Tissue.MUSCLE
        tissue[outside > 7 + self.fat] = Tissue.MUSCLE  # skin
        dome = 84 + self.dome - 42 * cavity**2
        abdomen = (cavity < 0.97) & (points[2] < dome)
        self._paint_bowel(tissue, points, abdomen)
        self._paint_muscles(tissue, points, outside)
        self._paint_organs(tissue, points, abdomen)
        tissue[(cavity < 0.97) & (points[2] > dome + 3)] = Tissue.LUNG
        self._paint_vessels(tissue, points)
        self._paint_bones(tissue, points, outside)
        return tissue

    def _paint_bowel(self, tissue: np.ndarray, points: Points, abdomen: np.ndarray) -> None:
        _, y, z = points
        loop = self.loops(points) + np.clip((y - 5) / 25, -2, 0) + np.clip((20 - z) / 30, -2, 0.2)
        loop = np.where(abdomen, loop, -9)
        for tube in (_tube(points, 90, -8, 16, 15), _tube(points, -93, -14, 13, 14)):
            loop = np.maximum(loop, np.where(z < 12, 2 * (1 - tube) - 0.2, -9))
        loop = np.where(abdomen, loop, -9)
        filling = self.filling(points)
        tissue[loop > -0.1] = Tissue.BOWEL
        tissue[(loop > 0.35) & (filling > -0.3)] = Tissue.CONTENT
        tissue[(loop > 0.35) & (filling > 0.9)] = Tissue.GAS
        wall = self.organs["stomach"].level(points)
        tissue[(wall < 1) & abdomen] = Tissue.BOWEL
        bubble = y > self.organs["stomach"].centre[1] + 12
        tissue[(wall < 0.84) & abdomen] = Tissue.CONTENT
        tissue[(wall < 0.84) & abdomen & bubble] = Tissue.GAS

    def _paint_muscles(self, tissue: np.ndarray, points: Points, outside: np.ndarray) -> None:
        sides = np.abs(points[0]), points[1], points[2]
        mirrored = np.stack(sides)
        psoas = _tube(mirrored, 33, -46, 1, 1) / np.clip(13 - 0.1 * points[2], 5, 18)
        back = _tube(mirrored, 30, -77, 27, 16)
        tissue[((psoas < 1) | (back < 1)) & (outside < 9 + 0.3 * self.fat)] = Tissue.MUSCLE

    def _paint_organs(self, tissue: np.ndarray, points: Points, abdomen: np.ndarray) -> None:
        organs = self.organs
        tissue[(organs["pancreas"].level(points) < 1) & abdomen] = Tissue.GLAND
        hollow = organs["spleen"].level(points, (36, 14, 0)) < 0.85
        tissue[(organs["spleen"].level(points) < 1) & ~hollow & abdomen] = Tissue.SPLEEN
        lobes = _merge(organs["right lobe"].level(points), organs["left lobe"].level(points))
        liver = (lobes < 0.96) & abdomen
        tissue[liver] = Tissue.LIVER
        inner = np.flatnonzero(liver & (lobes < 0.85))
        first, second = (field(points[:, inner]) for field in self.veins)
        tissue[inner[np.hypot(first, second) < 0.28]] = Tissue.LIVER_VEIN
        tissue[organs["gallbladder"].level(points) < 1] = Tissue.BILE
        for side, label in ((-1, Tissue.LEFT_KIDNEY), (1, Tissue.RIGHT_KIDNEY)):
            kidney = organs[f"kidney {side}"]
            level = kidney.level(points)
            hilum = kidney.level(points, (-side * 25, 6, 0)) < 0.66
            tissue[(level < 1.12) & (level >= 1)] = Tissue.FAT
            tissue[level < 1] = label
            tissue[(level < 1) & hilum] = Tissue.FAT

    def _paint_vessels(self, tissue: np.ndarray, points: Points) -> None:
        sway = 4 * np.sin(points[2] / 45)
        shifted = np.stack([points[0] - sway, points[1], points[2]])
        tissue[_tube(shifted, 15, -18, 11, 9) < 1] = Tissue.VEIN
        tissue[_tube(shifted, -11, -19, 10, 10) < 1] = Tissue.ARTERY
        for side in (-1, 1):
            centre = self.organs[f"kidney {side}"].centre
            near = np.abs(points[0] - side * 30) < 18
            vein = np.hypot(points[1] + 24 + 0.2 * np.abs(points[0]), points[2] - centre[2]) < 5
            tissue[near & vein] = Tissue.VEIN

    def _paint_bones(self, tissue: np.ndarray, points: Points, outside: np.ndarray) -> None:
        x, y, z = points
        phase = np.mod(z + self.disc, 34)
        body = _tube(points, 0, -43, 22, 17)
        tissue[body < 1] = Tissue.BONE
        tissue[(body < 0.86) & (phase > 9.5)] = Tissue.MARROW
        tissue[(body < 0.97) & (phase < 7)] = Tissue.DISC
        arch = _tube(points, 0, -67, 13, 12)
        wing = (np.hypot((np.abs(x) - 24) / 20, (y + 66) / 5) < 1) & (phase > 20)
        spine = (_tube(points, 0, -83, 4, 12) < 1) & (phase > 14)
        tissue[(arch < 1) | wing | spine] = Tissue.BONE
        tissue[arch < 0.62] = Tissue.CSF
        # Ribs slope down towards the front, and end at the costal margin.
        height = z + 0.45 * y
        rib = (np.mod(height + self.rib, 30) < 11) & (height > -35) & (np.abs(x) > 25)
        shell = np.abs(outside - 4.5)
        tissue[rib & (shell < 4.5)] = Tissue.BONE
        tissue[rib & (shell < 1.8)] = Tissue.MARROW


def _draw_organs(rng: np.random.Generator) -> dict[str, Organ]:
    organs = {
        "stomach": Organ(rng, (-42, 30, 40), (36, 33, 40), tilt=(0, 25, 0), spread=0.15),
        "pancreas": Organ(rng, (-15, 6, 8), (48, 11, 13), tilt=(0, 15, -15), spread=0.15),
        "right lobe": Organ(rng, (56, 6, 34), (60, 68, 56), tilt=(0, 10, 10), spread=0.09),
        "left lobe": Organ(rng, (-8, 42, 46), (60, 30, 32), tilt=(0, -10, 0), spread=0.14),
        "spleen": Organ(rng, (-82, -28, 36), (31, 48, 46), tilt=(20, 0, 15), spread=0.16),
        "gallbladder": Organ(rng, (40, 52, 0), (12, 13, 21), tilt=(20, 0, 0), spread=0.2),
    }
    for side, height in ((-1, 0), (1, -16)):
        centre = (side * 58, -40, height + rng.normal(0, 8))
        organs[f"kidney {side}"] = Organ(
            rng, centre, (26, 24, 48), tilt=(-8, -side * 10, 0), spread=0.09
        )
    return organs
