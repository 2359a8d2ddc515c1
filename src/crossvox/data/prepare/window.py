"""The Hounsfield units to which a CT is clipped: of soft tissue, widened where classes need it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from crossvox.data.formats.nifti import NiftiFile, label_indices, read_nifti
from crossvox.data.manifest import Manifest
from crossvox.data.prepare.budget import Budget
from crossvox.data.prepare.preprocess import SOFT_TISSUE, Window

MAX_SCANS = 16
"""Labelled scans that are looked at."""
MAX_VOXELS = 20_000
"""Voxels of a class that are taken of each scan, evenly spread."""
STEP = 50.0
"""Ends of a window that is widened are multiples of it, and lie as far outside at least."""
AIR, DENSEST = -1000.0, 3000.0
"""Ends beyond which no window reaches."""


def choose_windows(
    manifest: Manifest,
    budget: Budget,
    labelled: Mapping[str, Sequence[str]],
    read: Callable[[Path], NiftiFile] = read_nifti,
) -> dict[str, Window]:
    """Choose the window of each CT: the budget's, else the manifest's, else by the labelled voxels.

    Args:
        manifest: the data set.
        budget: of the plan.
        labelled: modality → ids of the cases whose labels may be used.
        read: reads a label map, such as a `LabelCache`.

    Returns:
        Modality → lowest and highest HU; other kinds than CT have no window.

    Raises:
        DataError: a labelled scan cannot be read.
    """
    windows = {}
    for modality in (m for m, kind in manifest.modalities.items() if kind == "ct"):
        given = budget.window or manifest.windows.get(modality)
        if given is None:
            given = fit_window(_class_values(manifest, modality, labelled.get(modality, ()), read))
        windows[modality] = given
    return windows


def fit_window(values: Mapping[str, np.ndarray]) -> Window:
    """Return the window of soft tissue, widened until it holds the classes.

    An end moves if more than a quarter of a class's voxels lie beyond it. It then lies beyond all
    but 0.5 % of them, with a margin. Fewer, such as gas in a stomach or contrast medium in the
    kidneys of some scans, move nothing.

    Args:
        values: class → (n,) HU of labelled voxels.

    >>> fit_window({"lung": np.linspace(-950, -700, 99)})
    (-1000.0, 240.0)
    """
    low, high = SOFT_TISSUE
    for own in (own for own in values.values() if own.size):
        least, first, last, most = np.percentile(own, [0.5, 25, 75, 99.5])
        if first < SOFT_TISSUE[0]:
            low = min(low, max(AIR, STEP * math.floor(least / STEP - 1)))
        if last > SOFT_TISSUE[1]:
            high = max(high, min(DENSEST, STEP * math.ceil(most / STEP + 1)))
    return low, high


def _class_values(
    manifest: Manifest, modality: str, ids: Sequence[str], read: Callable[[Path], NiftiFile]
) -> dict[str, np.ndarray]:
    """Return class → HU of its voxels in some of the labelled scans, evenly drawn."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for case in map(manifest.case, ids[:: math.ceil(len(ids) / MAX_SCANS) or 1]):
        scan = case.read_image(modality)
        file = read(case.labels[modality])
        label = label_indices(file, manifest.labels, manifest.ignore, scan.grid)
        for k, name in enumerate(manifest.labels, start=1):
            own = scan.data[label == k]
            found[name].append(own[:: max(1, math.ceil(own.size / MAX_VOXELS))])
    return {name: np.concatenate(parts) for name, parts in found.items()}
