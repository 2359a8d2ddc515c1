"""Which classes are a single connected piece in the labelled training scans."""

from __future__ import annotations

import numpy as np

from crossvox.components import drop_smaller_parts
from crossvox.data.manifest import Manifest
from crossvox.data.nifti import read_label
from crossvox.data.selection import Selection

STRAY = 0.05
"""A class with a larger share of its voxels outside each scan's largest part has several parts."""


def one_piece(manifest: Manifest, selection: Selection) -> tuple[str, ...]:
    """Names of the classes of which at most `STRAY` lies outside a scan's largest part.

    Over all labelled training scans of a modality together, in each modality that shows the class;
    on the label files' own grids. A class that no scan shows is not among the names. No other
    label is opened.

    Raises:
        DataError: a label cannot be read.
    """
    names = list(manifest.labels)
    shown: set[str] = set()
    several: set[str] = set()
    for modality, cases in selection.labelled.items():
        voxels = np.zeros((2, len(names) + 1), dtype=np.int64)
        for case in map(manifest.case, cases):
            label = read_label(case.labels[modality], manifest.labels, manifest.ignore)
            outlined = names if case.annotated is None else case.annotated
            known = [k for k, name in enumerate(names, 1) if name in outlined]
            voxels[0, known] += np.bincount(label[label > 0], minlength=len(names) + 1)[known]
            dropped = drop_smaller_parts(label, known)
            voxels[1, : len(dropped)] += dropped
        own, stray = voxels[:, 1:]
        shown.update(names[k] for k in np.flatnonzero(own))
        several.update(names[k] for k in np.flatnonzero(stray > STRAY * own))
    return tuple(name for name in names if name in shown - several)
