"""Layout of the classes in the labelled training scans: connected or not, where, and how large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np

from crossvox.batch import Offset, Offsets
from crossvox.data.checks.volumes import VolumeRange
from crossvox.data.formats.nifti import NiftiFile, label_indices, read_nifti
from crossvox.data.manifest import Case, Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.utils.connected_components import class_centres, keep_largest_components

MAX_STRAY = 0.05
"""Largest share of a class's voxels outside the largest connected parts of its scans."""
MAX_SPREAD = 60.0
"""Largest distance in mm between an offset in one scan and the mean offset; beyond it the place of
one class says nothing about the other's."""


@dataclass(frozen=True)
class LabelLayout:
    """Layout of the classes in labelled scans.

    Attributes:
        one_piece: names of the classes that form one connected part. In every modality that shows
            the class, at most `MAX_STRAY` of its voxels lie outside the largest part of each
            scan. A class that no scan shows is not listed.
        offsets: see `Task.offsets`; means over the scans that show both classes, rounded to 0.1
            mm. None if no scan shows both, or if one differs from the mean by over `MAX_SPREAD`.
        volumes: modality → class → its volumes; a modality without labelled scans has those of
            all others.
    """

    one_piece: tuple[str, ...]
    offsets: Offsets
    volumes: dict[str, dict[str, VolumeRange]] = field(default_factory=dict)


def find_label_layout(
    manifest: Manifest, selection: Selection, read: Callable[[Path], NiftiFile] = read_nifti
) -> LabelLayout:
    """Measure the layout on the labelled training scans, on the label files' own grids.

    No other label is opened. Classes that a case's annotators did not outline do not count there.

    Args:
        manifest: the data set.
        selection: names the labelled scans.
        read: reads a label map, such as a `LabelCache`.

    Raises:
        DataError: a label map cannot be read.
    """
    names = list(manifest.labels)
    shown, scattered = set[int](), set[int]()
    offsets: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    volumes: dict[str, dict[str, list[float]]] = {m: defaultdict(list) for m in manifest.modalities}
    for modality, cases in selection.labelled.items():
        total, stray = np.zeros((2, len(names) + 1), dtype=np.int64)
        for case in map(manifest.case, cases):
            file = read(case.labels[modality])
            label = label_indices(file, manifest.labels, manifest.ignore)
            outlined = _outlined(case, names)
            affine = file.require_sound().grid.affine[:3, :3]
            centres = class_centres(label, outlined)
            for (first, a), (second, b) in permutations(centres.items(), 2):
                offsets[first, second].append(affine @ (a - b))
            counts = np.bincount(label[label > 0], minlength=len(names) + 1)
            total[outlined] += counts[outlined]
            ml = abs(np.linalg.det(affine)) / 1000
            for k in outlined:
                volumes[modality][names[k - 1]].append(float(counts[k] * ml))
            dropped = keep_largest_components(label, outlined)
            stray[: len(dropped)] += dropped
        shown.update(np.flatnonzero(total).tolist())
        scattered.update(np.flatnonzero(stray > MAX_STRAY * total).tolist())
    one_piece = tuple(name for k, name in enumerate(names, 1) if k in shown - scattered)
    return LabelLayout(one_piece, _mean_offsets(len(names), offsets), _ranges(volumes))


def _outlined(case: Case, names: Sequence[str]) -> list[int]:
    """Return the indices of the classes that were outlined in a case."""
    outlined = names if case.annotated is None else case.annotated
    return [k for k, name in enumerate(names, 1) if name in outlined]


def _ranges(
    volumes: Mapping[str, Mapping[str, list[float]]],
) -> dict[str, dict[str, VolumeRange]]:
    """Return modality → class → range of its volumes, all modalities' for one without labels."""
    everywhere: dict[str, list[float]] = defaultdict(list)
    for own in volumes.values():
        for name, found in own.items():
            everywhere[name] += found
    return {
        modality: {name: VolumeRange.of(found) for name, found in (own or everywhere).items()}
        for modality, own in volumes.items()
    }


def _mean_offsets(n: int, found: Mapping[tuple[int, int], Sequence[np.ndarray]]) -> Offsets:
    def mean(offsets: Sequence[np.ndarray]) -> Offset | None:
        if not offsets:
            return None
        centre = np.mean(offsets, axis=0)
        if np.linalg.norm(offsets - centre, axis=1).max() > MAX_SPREAD:
            return None
        x, y, z = centre.round(1).tolist()
        return x, y, z

    classes = range(1, n + 1)
    offsets = tuple(tuple(mean(found.get((a, b), ())) for b in classes) for a in classes)
    return offsets if any(offset for row in offsets for offset in row) else ()
