"""Positions of crops: anywhere, near a class's voxel, or at one place of the body in two scans.

In TorchIO's terms, labelled crops come from a `LabelSampler` (the share `Sampling.foreground`) or a
`UniformSampler` (the others). There is no queue: `data.crops.dataset` seeds a generator with run
seed, step and row, so each crop can be drawn again.

The start of a crop is its first voxel in the scan, (3,) integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossvox.batch import Triple
from crossvox.data.geometry import voxel_map
from crossvox.data.prepare.store import StoredArray

TRIES = 50
"""Number of random starts that `overlapping_start` tries."""


def draw_case(pool: Sequence[str], number: int, key: Sequence[int]) -> str:
    """Return item `number` of an endless sequence of passes over `pool`, each shuffled anew.

    >>> [draw_case(["a", "b", "c"], number, key=[0]) for number in range(3)]
    ['c', 'a', 'b']
    """
    turn, place = divmod(number, len(pool))
    order = np.random.default_rng([*key, turn]).permutation(len(pool))
    return pool[order[place]]


def labelled_start(
    shape: Triple, patch: Triple, voxel: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Draw the start of a labelled crop.

    Args:
        shape: of the scan.
        patch: size of the crop.
        voxel: (3,) voxel to show, within the middle half of the crop; None = any position.
        rng: random generator.

    Returns:
        (3,) start; negative along axes where the crop is larger than the scan.
    """
    size = np.array(patch)
    if voxel is None:
        return clamp_start(rng.random(3) * (np.array(shape) - size), shape, patch)
    return clamp_start(voxel - size * rng.uniform(0.25, 0.75, 3), shape, patch)


def overlapping_start(
    scan: StoredArray, others: Sequence[StoredArray], patch: Triple, rng: np.random.Generator
) -> np.ndarray:
    """Draw the start of a crop of `scan` whose centre all other scans contain.

    After `TRIES` failures it is the start of the central crop.
    """
    room = np.maximum(np.array(scan.shape) - np.array(patch), 0)
    for _ in range(TRIES):
        start = clamp_start(rng.random(3) * room, scan.shape, patch)
        if all(contains_centre(o, voxel_map(o.grid, scan.grid), start, patch) for o in others):
            return start
    return clamp_start(room / 2, scan.shape, patch)


def common_position(scans: Sequence[StoredArray], patch: Triple, u: np.ndarray) -> np.ndarray:
    """Return a body position around which crops stay inside the body box of every scan.

    A body position is normalised to the body's bounding box: 0 at its start, 1 at its end. It
    matches crops of different subjects.

    Args:
        scans: of different subjects.
        patch: size of the crop.
        u: (3,) uniform random numbers in [0, 1].

    Returns:
        (3,) in [0, 1]: `u` scaled to the range that the smallest box allows.
    """
    size = np.array(patch)
    shares = [np.minimum(size / (high - low), 1) for low, high in (s.body_box for s in scans)]
    margin = np.max(shares, axis=0) / 2
    return margin + u * (1 - 2 * margin)


def start_at(scan: StoredArray, patch: Triple, position: np.ndarray) -> np.ndarray:
    """Return the start of the crop centred at a body position, (3,) as in `common_position`."""
    low, high = scan.body_box
    return clamp_start(low + position * (high - low) - np.array(patch) / 2, scan.shape, patch)


def position_of(scan: StoredArray, patch: Triple, start: np.ndarray) -> np.ndarray:
    """Return the body position of the centre of the crop that begins at `start`."""
    low, high = scan.body_box
    return (start + np.array(patch) / 2 - low) / (high - low)


def contains_centre(
    scan: StoredArray, matrix: np.ndarray, start: np.ndarray, patch: Triple
) -> bool:
    """Return whether `scan` contains the centre of a crop of another array.

    Args:
        scan: scan with its own grid.
        matrix: (4, 4) map from voxels of the other array to voxels of `scan`.
        start: of the crop in the other array.
        patch: size of the crop.
    """
    centre = matrix[:3, :3] @ (start + (np.array(patch) - 1) / 2) + matrix[:3, 3]
    return bool((centre > -0.5).all() and (centre < np.array(scan.shape) - 0.5).all())


def clamp_start(start: np.ndarray, shape: Triple, patch: Triple) -> np.ndarray:
    """Round a start and move the crop inside the scan; centre it along axes that are shorter."""
    room = np.array(shape) - np.array(patch)
    return np.where(room >= 0, np.clip(np.round(start), 0, np.maximum(room, 0)), room // 2)
