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

    Over all labelled training scans together, on the label files' own grids; a class that none of
    them shows is not among the names. No other label is opened.

    Raises:
        DataError: a label cannot be read.
    """
    names = list(manifest.labels)
    voxels = np.zeros((2, len(names) + 1), dtype=np.int64)
    for id, modality in sorted(selection.labels):
        case = manifest.case(id)
        label = read_label(case.labels[modality], manifest.labels, manifest.ignore)
        outlined = names if case.annotated is None else case.annotated
        known = [k for k, name in enumerate(names, 1) if name in outlined]
        found = np.bincount(label[label > 0], minlength=len(names) + 1)
        stray = drop_smaller_parts(label, known)
        voxels[0, known] += found[known]
        voxels[1, : len(stray)] += stray
    own, stray = voxels[:, 1:]
    return tuple(n for n, v, s in zip(names, own, stray, strict=True) if v and s <= STRAY * v)
