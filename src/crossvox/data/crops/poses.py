"""Random poses of crops: rotation, scale, mirroring."""

from __future__ import annotations

import numpy as np

from crossvox.batch import Task
from crossvox.data.crops.settings import Augment


def random_pose(augment: Augment, task: Task, rng: np.random.Generator) -> np.ndarray:
    """Draw the (3, 3) map from crop voxels to scan voxels, both relative to the crop's centre.

    The rotation acts in mm. Otherwise it would shear the anatomy where voxels are not cubes.
    """
    spacing = np.array(task.spacing)
    thick = spacing[2] > 2 * spacing[:2].max()
    rotation = np.eye(3)
    for axis in (2,) if thick else (0, 1, 2):
        angle = np.radians(augment.rotate) * rng.uniform(-1, 1)
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    size = 1 + augment.scale * rng.uniform(-1, 1, 3)
    mirror = np.ones(3)
    for axis in task.flips:
        if rng.random() < augment.flip:
            mirror[axis] = -1
    return np.diag(1 / spacing) @ rotation @ np.diag(spacing * mirror / size)
