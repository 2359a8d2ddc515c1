"""Boxes around the voxels of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mask_box(mask: np.ndarray, margins: Sequence[int]) -> tuple[slice, ...] | None:
    """Return the box of a mask's voxels and a margin along each axis; None for an empty mask."""
    box = []
    # Several times as fast as scipy's find_objects.
    for axis, margin in enumerate(margins):
        found = np.flatnonzero(mask.any(axis=tuple(k for k in range(mask.ndim) if k != axis)))
        if not len(found):
            return None
        stop = min(mask.shape[axis], int(found[-1]) + margin + 1)
        box.append(slice(max(0, int(found[0]) - margin), stop))
    return tuple(box)
