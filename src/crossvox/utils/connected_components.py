"""Connected parts of label maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CHUNK = 2**18
"""Voxels that are counted at a time, or as many as there are parts: counting makes some 50 bytes
of each."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Parts:
    """The connected parts of one class, the voxels of each of which share faces.

    With what `find_parts` and `keep` make it takes 7 bytes per voxel of the class's box, and some
    100 per part.

    Attributes:
        inside: view of the label map, of the class's box.
        corner: (3,) voxel of the label map where the box begins.
        numbers: of the box's shape: per voxel its part, from 1 up; 0 where another class is.
        sizes: (n,) voxels of each part.
    """

    inside: np.ndarray
    corner: np.ndarray
    numbers: np.ndarray
    sizes: np.ndarray

    def centres(self) -> np.ndarray:
        """(n, 3) mean voxel of each part, in the label map."""
        n = len(self.sizes)
        total = np.zeros((n, 3))
        for start, chunk in _chunks(self.numbers, n):
            own = np.flatnonzero(chunk)
            for axis, places in enumerate(np.unravel_index(start + own, self.numbers.shape)):
                total[:, axis] += np.bincount(chunk[own], places, n + 1)[1:]
        return total / self.sizes[:, None] + self.corner

    def keep(self, part: int) -> int:
        """Set to 0 all but one part, counted from 0; returns how many voxels these were."""
        if len(self.sizes) > 1:
            self.inside[(self.numbers > 0) & (self.numbers != part + 1)] = 0
        return int(self.sizes.sum() - self.sizes[part])


def class_boxes(label: np.ndarray, classes: Iterable[int]) -> Iterator[tuple[int, Box]]:
    """The smallest box that holds all of a class, of those classes that a label map has.

    Args:
        label: (X, Y, Z) class indices, 0 background.
        classes: those to look at.
    """
    boxes = ndimage.find_objects(label)
    for index in classes:
        if index <= len(boxes) and boxes[index - 1] is not None:
            yield index, boxes[index - 1]


def find_parts(label: np.ndarray, index: int, box: Box) -> Parts:
    """The parts of a class that a box of a label map holds."""
    numbers, n = ndimage.label(label[box] == index)
    sizes = np.zeros(n, dtype=np.int64)
    for _, chunk in _chunks(numbers, n):
        sizes += np.bincount(chunk, minlength=n + 1)[1:]
    return Parts(label[box], np.array([along.start for along in box]), numbers, sizes)


def drop_smaller_parts(label: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    """Set to 0 all but the largest part of each class, the first of equals.

    Args:
        label: (X, Y, Z) class indices, 0 background; changed in place.
        classes: those to look at; others stay as they are.

    Returns:
        Per class index up to the largest in `label`, how many voxels were set to 0.
    """
    dropped = np.zeros(max(0, int(label.max(initial=0))) + 1, dtype=np.int64)
    for index, box in class_boxes(label, classes):
        dropped[index] = _drop_smaller(find_parts(label, index, box))
    return dropped


def class_centres(label: np.ndarray, classes: Iterable[int]) -> dict[int, np.ndarray]:
    """Class index → (3,) mean voxel of all its parts, of those that a label map has.

    Args:
        label: (X, Y, Z) class indices, 0 background.
        classes: those to look at.
    """
    centres = {}
    for index, box in class_boxes(label, classes):
        own = label[box] == index
        counts = [own.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
        mean = [np.average(np.arange(len(n)), weights=n) for n in counts]
        centres[index] = np.array(mean) + [along.start for along in box]
    return centres


def _drop_smaller(parts: Parts) -> int:
    # A function, so that nothing holds these parts while the next class's are found.
    return parts.keep(int(parts.sizes.argmax()))


def _chunks(numbers: np.ndarray, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """Some voxels at a time, each with the place of its first among all."""
    # Of as many as there are parts at least: what is counted has that length.
    flat, step = numbers.reshape(-1), max(CHUNK, n)
    for start in range(0, flat.size, step):
        yield start, flat[start : start + step]
