"""Which part of a class a label map keeps: by its size, and by where the other classes are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from crossvox.batch import Offset, Offsets
from crossvox.utils.connected_components import (
    Parts,
    class_boxes,
    class_centres,
    drop_smaller_parts,
    find_parts,
)

DECAY_MM = 60.0
"""mm: a part that lies so much further from its place counts as e times smaller."""


def keep_one_component(
    label: np.ndarray, affine: np.ndarray, classes: Collection[int], offsets: Offsets
) -> None:
    """Set to 0 all but one part of each of these classes.

    It is the part with the largest n · exp(−d / `DECAY_MM`): n are its voxels, and d is how far its
    centre lies from its place, in the mean over the other classes in the label map by which that
    place is known. Without any, it is the largest. One class after another; a class whose turn is
    still to come counts by its largest part.

    Args:
        label: (X, Y, Z) class indices, 0 background; changed in place.
        affine: (4, 4), voxel index → world position in mm (RAS+).
        classes: those of which one part is kept; others stay as they are.
        offsets: `Task.offsets`.
    """
    if not offsets:
        drop_smaller_parts(label, classes)
        return
    boxes = dict(class_boxes(label, classes))
    found = {k: _measured(find_parts(label, k, box)) for k, box in boxes.items()}
    centres = class_centres(label, set(range(1, len(offsets) + 1)) - set(classes))
    centres |= {k: own[sizes.argmax()] for k, (sizes, own) in found.items()}
    for index, (sizes, own) in found.items():
        away = _away(own, offsets[index - 1], centres, affine)
        kept = int((np.log(sizes) - away / DECAY_MM).argmax())
        centres[index] = own[kept]
        if len(sizes) > 1:
            # Found once more, as all classes' parts at a time would take too much memory.
            find_parts(label, index, boxes[index]).keep(kept)


def _measured(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and centres; a function, so that nothing holds the parts while the next are found."""
    return parts.sizes, parts.centres()


def _away(
    own: np.ndarray,
    offsets: Sequence[Offset | None],
    centres: Mapping[int, np.ndarray],
    affine: np.ndarray,
) -> np.ndarray:
    """Of (n, 3) centres of a class, how far in mm each lies from where the other classes' say."""
    distances = [
        np.linalg.norm((own - centres[other]) @ affine[:3, :3].T - offset, axis=1)
        for other, offset in enumerate(offsets, start=1)
        if offset is not None and other in centres
    ]
    return np.mean(distances, axis=0) if distances else np.zeros(len(own))
