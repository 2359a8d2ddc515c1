"""Connected components of label maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CHUNK = 2**18
"""Voxels that are counted at a time, or as many as there are components. Counting takes about 50
bytes for each."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Components:
    """The connected components of one class; voxels of a component share faces.

    Finding them and `keep_only` take 7 bytes per voxel of the class's box, and about 100 per
    component.

    Attributes:
        view: of the label map, inside the class's box.
        corner: (3,) voxel of the label map where the box begins.
        numbers: of the box's shape; per voxel the number of its component, from 1, or 0 where
            another class is.
        sizes: (n,) voxels of each component.
    """

    view: np.ndarray
    corner: np.ndarray
    numbers: np.ndarray
    sizes: np.ndarray

    def centres(self) -> np.ndarray:
        """Return the (n, 3) mean voxel of each component, in the label map."""
        n = len(self.sizes)
        total = np.zeros((n, 3))
        for start, chunk in _chunks(self.numbers, n):
            own = np.flatnonzero(chunk)
            for axis, index in enumerate(np.unravel_index(start + own, self.numbers.shape)):
                total[:, axis] += np.bincount(chunk[own], index, n + 1)[1:]
        return total / self.sizes[:, None] + self.corner

    def keep_only(self, component: int) -> int:
        """Set all but one component, counted from 0, to 0; return the number of these voxels."""
        if len(self.sizes) > 1:
            self.view[(self.numbers > 0) & (self.numbers != component + 1)] = 0
        return int(self.sizes.sum() - self.sizes[component])


def find_components(label: np.ndarray, index: int, box: Box) -> Components:
    """Find the components of a class inside a box of a label map."""
    numbers, n = ndimage.label(label[box] == index)
    sizes = np.zeros(n, dtype=np.int64)
    for _, chunk in _chunks(numbers, n):
        sizes += np.bincount(chunk, minlength=n + 1)[1:]
    return Components(label[box], np.array([along.start for along in box]), numbers, sizes)


def keep_largest_components(label: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    """Set all but the largest component of each class to 0; of equal ones the first is kept.

    Args:
        label: (X, Y, Z) class indices, 0 background; changed in place.
        classes: indices of the classes to treat; others stay as they are.

    Returns:
        Number of voxels set to 0, per class index up to the largest in `label`.

    >>> keep_largest_components(np.array([[[1, 1, 0, 1]]]), [1])
    array([0, 1])
    """
    dropped = np.zeros(max(0, int(label.max(initial=0))) + 1, dtype=np.int64)
    for index, box in class_boxes(label, classes):
        dropped[index] = _keep_largest(find_components(label, index, box))
    return dropped


def class_boxes(label: np.ndarray, classes: Iterable[int]) -> Iterator[tuple[int, Box]]:
    """Yield the class index and the smallest box of each class that a label map has.

    Args:
        label: (X, Y, Z) class indices, 0 background.
        classes: indices of the classes to look for.
    """
    boxes = ndimage.find_objects(label)
    for index in classes:
        if index <= len(boxes) and boxes[index - 1] is not None:
            yield index, boxes[index - 1]


def class_centres(label: np.ndarray, classes: Iterable[int]) -> dict[int, np.ndarray]:
    """Return class index → (3,) mean voxel of each class that a label map has.

    Args:
        label: (X, Y, Z) class indices, 0 background.
        classes: indices of the classes to look for.
    """
    centres = {}
    for index, box in class_boxes(label, classes):
        own = label[box] == index
        counts = [own.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
        mean = [np.average(np.arange(len(n)), weights=n) for n in counts]
        centres[index] = np.array(mean) + [along.start for along in box]
    return centres


def _keep_largest(components: Components) -> int:
    # A function, so that these components are freed before the next class's are found.
    return components.keep_only(int(components.sizes.argmax()))


def _chunks(numbers: np.ndarray, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield chunks of at least `n` voxels, each with the flat index of its first voxel."""
    flat, step = numbers.reshape(-1), max(CHUNK, n)
    for start in range(0, flat.size, step):
        yield start, flat[start : start + step]
