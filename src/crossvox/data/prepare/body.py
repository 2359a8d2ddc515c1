"""The body in a scan, so that a picture leaves out what lies around it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from crossvox.data.prepare.preprocess import above_air
from crossvox.utils.connected_components import keep_largest_components

SIDE = 96
"""The mask is found on every n-th voxel, so that an axis keeps this many to twice as many."""


def body_mask(image: np.ndarray) -> np.ndarray:
    """Return the mask of the body and the air in it: the largest bright part, its holes filled.

    Args:
        image: (X, Y, Z) intensities of any unit.

    Returns:
        (X, Y, Z) bool; all True where no body is found.
    """
    steps = [max(1, size // SIDE) for size in image.shape]
    coarse = image[tuple(slice(None, None, step) for step in steps)]
    finite = np.isfinite(coarse)
    lowest = float(coarse[finite].min()) if finite.any() else 0.0
    bright = above_air(np.where(finite, coarse, lowest))
    # The table and the noise around the body may touch it; without its rim they do not.
    part = ndimage.binary_erosion(bright, border_value=1).astype(np.uint8)
    keep_largest_components(part, [1])
    body = ndimage.binary_dilation(part > 0, iterations=2)
    for axis in range(3):
        for plane in np.moveaxis(body, axis, 0):
            plane[...] = ndimage.binary_fill_holes(plane)
    if not body.any():
        return np.ones(image.shape, bool)
    for axis, step in enumerate(steps):
        body = body.repeat(step, axis)
    return body[tuple(slice(size) for size in image.shape)]
