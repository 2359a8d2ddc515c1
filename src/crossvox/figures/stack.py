"""Several pictures as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.image import imread, imsave

from crossvox.utils.files import atomic_path


def stack(pictures: Sequence[Path], path: Path) -> None:
    """Write PNG files below each other into one, on white, as a whole or not at all."""
    arrays = [imread(picture)[..., :3] for picture in pictures]
    width = max(array.shape[1] for array in arrays)
    rows = [
        np.pad(a, ((0, 0), (0, width - a.shape[1]), (0, 0)), constant_values=1.0) for a in arrays
    ]
    with atomic_path(path) as temporary:
        imsave(temporary, np.concatenate(rows), format="png")
