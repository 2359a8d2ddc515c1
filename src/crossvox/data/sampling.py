"""Which crops a step looks at: a pure function of seed, step and row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.batch import Triple
from crossvox.data.geometry import voxel_map
from crossvox.data.store import StoredArray


@dataclass(frozen=True)
class Sampling:
    """Crops per step, summed over all processes.

    Attributes:
        labelled: labelled crops per modality.
        unlabelled: unlabelled crops per modality.
        foreground: part of the labelled crops that is centred near a random class's voxel.
        partner_drop: part of the labelled crops that is shown without the subject's other
            modalities, so that one modality alone is a trained case.
    """

    labelled: int = 2
    unlabelled: int = 2
    foreground: float = 0.5
    partner_drop: float = 0.5


def pick(pool: Sequence[str], number: int, key: Sequence[int]) -> str:
    """The `number`-th item of an endless sequence of reshuffled passes over `pool`."""
    turn, place = divmod(number, len(pool))
    order = np.random.default_rng([*key, turn]).permutation(len(pool))
    return pool[order[place]]


def labelled_start(
    shape: Triple, patch: Triple, voxel: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """First voxel of a labelled crop.

    Args:
        shape: of the volume.
        patch: of the crop.
        voxel: a voxel to be shown, somewhere in the middle half of the crop; None for anywhere.
        rng: source of chance.

    Returns:
        (3,) integers; negative where the crop is larger than the volume.
    """
    size = np.array(patch)
    if voxel is None:
        return clamped(rng.random(3) * (np.array(shape) - size), shape, patch)
    return clamped(voxel - size * rng.uniform(0.25, 0.75, 3), shape, patch)


def matched_starts(
    entries: Sequence[StoredArray], patch: Triple, u: np.ndarray
) -> list[np.ndarray]:
    """First voxels of crops about one normalised position inside each body's box.

    Args:
        entries: scans of different subjects.
        patch: of the crop.
        u: (3,) in [0, 1], drawn once for all. It is squeezed by the same margins in all scans,
            so that the crops stay inside the bodies and still show the same position.

    Returns:
        (3,) integers per scan.
    """
    size = np.array(patch)
    boxes = [entry.box for entry in entries]
    margin = np.max([np.minimum(size / (high - low), 1) / 2 for low, high in boxes], axis=0)
    position = margin + u * (1 - 2 * margin)
    return [
        clamped(low + position * (high - low) - size / 2, entry.shape, patch)
        for entry, (low, high) in zip(entries, boxes, strict=True)
    ]


def overlapping_start(
    entry: StoredArray, others: Sequence[StoredArray], patch: Triple, rng: np.random.Generator
) -> np.ndarray:
    """First voxel of a crop whose centre all fields of view contain, where there is one."""
    room = np.maximum(np.array(entry.shape) - np.array(patch), 0)
    for _ in range(50):
        start = clamped(rng.random(3) * room, entry.shape, patch)
        if all(shows(o, voxel_map(o.grid, entry.grid), start, patch) for o in others):
            return start
    return clamped(room / 2, entry.shape, patch)


def shows(entry: StoredArray, matrix: np.ndarray, start: np.ndarray, patch: Triple) -> bool:
    """Whether `entry` contains the centre of the crop that begins at `start`.

    Args:
        entry: the scan asked about.
        matrix: (4, 4), voxel of the crop's own array → voxel of `entry`.
        start: the crop's first voxel in its own array.
        patch: size of the crop.
    """
    centre = matrix[:3, :3] @ (start + (np.array(patch) - 1) / 2) + matrix[:3, 3]
    return bool((centre > -0.5).all() and (centre < np.array(entry.shape) - 0.5).all())


def clamped(start: np.ndarray, shape: Triple, patch: Triple) -> np.ndarray:
    """`start`, moved so that the crop stays inside, or is centred where it is larger."""
    room = np.array(shape) - np.array(patch)
    return np.where(room >= 0, np.clip(np.round(start), 0, np.maximum(room, 0)), room // 2)
