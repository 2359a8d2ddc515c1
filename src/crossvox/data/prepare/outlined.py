"""Whether experts outlined something in what counts as fill."""

from __future__ import annotations

import numpy as np

from crossvox.data.geometry import Grid, voxel_map
from crossvox.data.prepare.store import StoredArray

MOST = 1e-3
"""Share of a label's voxels in fill up to which they count as rounding at its edge."""


def outlines_fill(image: StoredArray, label: StoredArray, native: Grid) -> bool:
    """Return whether more than a few voxels of a label map lie in its scan's fill.

    Args:
        image: the prepared scan.
        label: its prepared label map, on the same grid.
        native: grid of the scan's file.
    """
    content = image.content
    if content.is_all:
        return False
    found = np.argwhere(label.array[:] > 0)
    if not len(found):
        return False
    to_native = voxel_map(native, image.grid)
    places = np.rint(found @ to_native[:3, :3].T + to_native[:3, 3]).astype(int)
    places = np.clip(places, 0, np.array(native.shape) - 1)
    return bool(content.is_fill(places).mean() > MOST)
