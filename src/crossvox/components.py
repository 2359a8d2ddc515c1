"""Connected parts of label maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CHUNK = 2**18
"""Voxels that are counted at a time, or one plane: counting makes up to 40 bytes of each."""


@dataclass(frozen=True)
class Parts:
    """The connected parts of one class, the voxels of each of which share faces.

    Attributes:
        index: of the class.
        box: view of the label map, the smallest that holds the whole class.
        corner: voxel of the label map where `box` begins.
        numbers: of `box`'s shape: per voxel its part, from 1 up; 0 where another class is.
        sizes: (n,) voxels of each part.
    """

    index: int
    box: np.ndarray
    corner: tuple[int, ...]
    numbers: np.ndarray
    sizes: np.ndarray

    @property
    def largest(self) -> int:
        """Which part has most voxels, from 0 up; the first of equals."""
        return int(self.sizes.argmax())

    def centres(self) -> np.ndarray:
        """(n, 3) mean voxel of each part, in the label map."""
        total = np.zeros((len(self.sizes), 3))
        for start, planes in _planes(self.numbers):
            inside = np.nonzero(planes)
            for axis, places in enumerate(inside):
                sums = np.bincount(planes[inside], places, len(self.sizes) + 1)
                total[:, axis] += sums[1:]
            total[:, 0] += start * _count(planes, len(self.sizes))
        return total / self.sizes[:, None] + self.corner

    def keep(self, part: int) -> int:
        """Set to 0 all other parts; returns how many voxels these were."""
        if len(self.sizes) > 1:
            self.box[(self.numbers > 0) & (self.numbers != part + 1)] = 0
        return int(self.sizes.sum() - self.sizes[part])


def connected_parts(label: np.ndarray, classes: Iterable[int]) -> Iterator[Parts]:
    """The parts of those classes that a label map has, a class at a time.

    Beside `label` it takes 7 bytes per voxel of the largest box around a class.

    Args:
        label: (X, Y, Z) class indices, 0 background.
        classes: those to look at.
    """
    boxes = ndimage.find_objects(label)
    for index in classes:
        if index > len(boxes) or boxes[index - 1] is None:
            continue
        place = boxes[index - 1]
        numbers, n = ndimage.label(label[place] == index)
        sizes = sum(_count(planes, n) for _, planes in _planes(numbers))
        yield Parts(index, label[place], tuple(s.start for s in place), numbers, np.asarray(sizes))


def drop_smaller_parts(label: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    """Set to 0 all but the largest part of each class, the first of equals.

    Args:
        label: (X, Y, Z) class indices, 0 background; changed in place.
        classes: those to look at; others stay as they are.

    Returns:
        Per class index up to the largest in `label`, how many voxels were set to 0.
    """
    dropped = np.zeros(max(0, int(label.max(initial=0))) + 1, dtype=np.int64)
    for parts in connected_parts(label, classes):
        dropped[parts.index] = parts.keep(parts.largest)
    return dropped


def class_centres(label: np.ndarray, classes: Iterable[int]) -> dict[int, np.ndarray]:
    """Class index → (3,) mean voxel of all its parts, of those that a label map has.

    Args:
        label: (X, Y, Z) class indices, 0 background.
        classes: those to look at.
    """
    centres, boxes = {}, ndimage.find_objects(label)
    for index in classes:
        if index > len(boxes) or boxes[index - 1] is None:
            continue
        inside = label[boxes[index - 1]] == index
        counts = [inside.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
        mean = [np.average(np.arange(len(n)), weights=n) for n in counts]
        centres[index] = np.array(mean) + [along.start for along in boxes[index - 1]]
    return centres


def _planes(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Some planes at a time, each with the number of its first."""
    step = max(1, CHUNK // numbers[0].size)
    for start in range(0, len(numbers), step):
        yield start, numbers[start : start + step]


def _count(planes: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(planes.ravel(), minlength=n + 1)[1:]
