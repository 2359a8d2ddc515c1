"""Which crops a step looks at: a pure function of seed, step and row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.batch import Triple
from crossvox.data.geometry import voxel_map
from crossvox.data.prepare.store import StoredArray
from crossvox.errors import require


@dataclass(frozen=True)
class Sampling:
    """Crops per step, summed over all processes.

    Attributes:
        labelled: labelled crops per modality.
        unlabelled: unlabelled crops per modality.
        foreground: part of the labelled crops that is centred near a random class's voxel.
        partner_drop: part of the labelled crops that is shown without the subject's other
            modalities, so that one modality alone is a trained case.
        align: bring the scans of a subject over each other before anything else, in prediction
            too, unless the data set is registered; headers may be centimetres off.
    """

    labelled: int = 2
    unlabelled: int = 2
    foreground: float = 0.5
    partner_drop: float = 0.5
    align: bool = True

    def __post_init__(self) -> None:
        require("sampling.labelled", self.labelled, 1)
        require("sampling.unlabelled", self.unlabelled, 1)
        require("sampling.foreground", self.foreground, 0, 1)
        require("sampling.partner_drop", self.partner_drop, 0, 1)


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


def common_position(entries: Sequence[StoredArray], patch: Triple, u: np.ndarray) -> np.ndarray:
    """A normalised position of the bodies' boxes about which crops stay inside all of them.

    Args:
        entries: scans of different subjects.
        patch: of the crop.
        u: (3,) in [0, 1], drawn once for all.

    Returns:
        (3,) in [0, 1]: `u`, squeezed by the largest margin that a box needs.
    """
    size = np.array(patch)
    sizes = [np.minimum(size / (high - low), 1) for low, high in (e.body_box for e in entries)]
    margin = np.max(sizes, axis=0) / 2
    return margin + u * (1 - 2 * margin)


def start_at(entry: StoredArray, patch: Triple, position: np.ndarray) -> np.ndarray:
    """First voxel of the crop about a normalised position of the body's box."""
    low, high = entry.body_box
    return clamped(low + position * (high - low) - np.array(patch) / 2, entry.shape, patch)


def position_of(entry: StoredArray, patch: Triple, start: np.ndarray) -> np.ndarray:
    """The normalised position of the body's box about which a crop lies."""
    low, high = entry.body_box
    return (start + np.array(patch) / 2 - low) / (high - low)


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
