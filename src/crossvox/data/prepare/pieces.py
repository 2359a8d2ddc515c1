"""How the classes lie in the labelled training scans: each in one piece or not, and where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from crossvox.batch import Offset, Offsets
from crossvox.data.formats.nifti import read_header, read_label
from crossvox.data.manifest import Case, Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.utils.connected_components import class_centres, drop_smaller_parts

STRAY = 0.05
"""A class with a larger share of its voxels outside each scan's largest part has several parts."""
SPREAD = 60.0
"""mm: a class that in some scan lies further than this from where it lies in their mean, seen from
another class, has no place that this other one could tell."""


@dataclass(frozen=True)
class Pieces:
    """What labelled scans tell of the classes.

    Attributes:
        one_piece: names of the classes of which at most `STRAY` lies outside a scan's largest
            part: over the scans of a modality together, in each modality that shows the class.
            A class that no scan shows is not among them.
        offsets: `Task.offsets`, the mean over all scans that show both classes, to a tenth of a
            millimetre; None where there are none, or one differs from the mean by more than
            `SPREAD`.
    """

    one_piece: tuple[str, ...]
    offsets: Offsets


def find_pieces(manifest: Manifest, selection: Selection) -> Pieces:
    """Look at all labelled training scans, on the label files' own grids, and open no other label.

    What a case's annotators did not outline has no say there.

    Raises:
        DataError: a label cannot be read.
    """
    names = list(manifest.labels)
    shown, several = set[int](), set[int]()
    seen: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for modality, cases in selection.labelled.items():
        voxels = np.zeros((2, len(names) + 1), dtype=np.int64)
        for case in map(manifest.case, cases):
            path = case.labels[modality]
            label = read_label(path, manifest.labels, manifest.ignore)
            known = _outlined(case, names)
            affine = read_header(path).affine[:3, :3]
            for (one, a), (other, b) in permutations(class_centres(label, known).items(), 2):
                seen[one, other].append(affine @ (a - b))
            voxels[0, known] += np.bincount(label[label > 0], minlength=len(names) + 1)[known]
            dropped = drop_smaller_parts(label, known)
            voxels[1, : len(dropped)] += dropped
        own, stray = voxels
        shown.update(np.flatnonzero(own).tolist())
        several.update(np.flatnonzero(stray > STRAY * own).tolist())
    one_piece = tuple(name for k, name in enumerate(names, 1) if k in shown - several)
    return Pieces(one_piece, _offsets(len(names), seen))


def _outlined(case: Case, names: Sequence[str]) -> list[int]:
    outlined = names if case.annotated is None else case.annotated
    return [k for k, name in enumerate(names, 1) if name in outlined]


def _offsets(n: int, seen: Mapping[tuple[int, int], Sequence[np.ndarray]]) -> Offsets:
    def mean(found: Sequence[np.ndarray]) -> Offset | None:
        if not found or np.linalg.norm(found - np.mean(found, axis=0), axis=1).max() > SPREAD:
            return None
        x, y, z = np.mean(found, axis=0).round(1).tolist()
        return x, y, z

    classes = range(1, n + 1)
    offsets = tuple(tuple(mean(seen.get((a, b), ())) for b in classes) for a in classes)
    return offsets if any(offset for row in offsets for offset in row) else ()
