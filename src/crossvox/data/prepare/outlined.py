"""How far into fill experts outlined something."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from crossvox.data.geometry import Grid, voxel_map
from crossvox.data.prepare.store import StoredArray

MOST_MARGIN = 2
"""Voxels from what a scan shows up to which outlines may reach into fill."""
MOST = 1e-3
"""Share of a label's voxels further in fill up to which they do not count."""


def reach_into_fill(image: StoredArray, label: StoredArray, native: Grid) -> int | None:
    """Return how many voxels a label map reaches into its scan's fill; None = far into it.

    Args:
        image: the prepared scan.
        label: its prepared label map, on the same grid.
        native: grid of the scan's file.
    """
    content = image.content
    found = np.empty((0, 3)) if content.is_all else np.argwhere(label.array[:] > 0)
    if not len(found):
        return 0
    to_native = voxel_map(native, image.grid)
    places = np.rint(found @ to_native[:3, :3].T + to_native[:3, 3]).astype(int)
    places = np.clip(places, 0, np.array(native.shape) - 1)
    for margin in range(MOST_MARGIN + 1):
        share = float(content.with_margin(margin).is_fill(places).mean())
        if share == 0:
            return margin
    return MOST_MARGIN if share <= MOST else None


def largest_reach(reached: Iterable[int | None]) -> int | None:
    """Return the largest of several such numbers; 0 if there are none."""
    known = list(reached)
    return None if None in known else max((n for n in known if n is not None), default=0)
