"""Connected parts of label maps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

CHUNK = 2**20
"""Voxels that are counted at a time: counting makes 8 bytes of each."""


def drop_smaller_parts(label: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    """Set to 0 all but the largest part of each class, the first of equals.

    Voxels of a part share faces. Beside `label` it takes 7 bytes per voxel of the largest box
    around a class.

    Args:
        label: (X, Y, Z) class indices, 0 background; changed in place.
        classes: those to look at; others stay as they are.

    Returns:
        Per class index up to the largest in `label`, how many voxels were set to 0.
    """
    boxes = ndimage.find_objects(label)
    dropped = np.zeros(len(boxes) + 1, dtype=np.int64)
    for index in classes:
        if index > len(boxes) or boxes[index - 1] is None:
            continue
        box = label[boxes[index - 1]]
        parts, n = ndimage.label(box == index)
        if n > 1:
            sizes = np.zeros(n + 1, dtype=np.int64)
            step = max(1, CHUNK // parts[0].size)
            for start in range(0, len(parts), step):
                sizes += np.bincount(parts[start : start + step].ravel(), minlength=n + 1)
            sizes[0] = 0
            box[(parts > 0) & (parts != sizes.argmax())] = 0
            dropped[index] = sizes.sum() - sizes.max()
    return dropped
