"""What a plan's spacing costs: the Dice that labels keep when they go onto its grid and back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crossvox.batch import IGNORE
from crossvox.data.formats.nifti import NiftiFile, label_indices, read_nifti
from crossvox.data.geometry import Grid, orient_grid, respace
from crossvox.data.manifest import Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.plan import Ceiling
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.inference.slabs import native_slabs
from crossvox.inference.sliding_window import Traversal
from crossvox.utils.boxes import mask_box

SCANS = 3
"""Labelled scans of each modality that are tried, at most."""

MARGIN = 2
"""Voxels of the plan's grid that are kept around the labels; further away there is nothing."""


def measure_ceiling(
    manifest: Manifest,
    selection: Selection,
    preprocessing: Preprocessing,
    read: Callable[[Path], NiftiFile] = read_nifti,
) -> dict[str, Ceiling]:
    """Return modality → what labels keep of themselves, over its first labelled training scans.

    Args:
        manifest: the data set.
        selection: names the labelled scans.
        preprocessing: of the plan.
        read: reads a label map, such as a `LabelCache`.

    Raises:
        DataError: a label map cannot be read.
    """
    found = {}
    for modality, cases in selection.labelled.items():
        kept: dict[str, list[float]] = {name: [] for name in manifest.labels}
        for case in map(manifest.case, cases[:SCANS]):
            file = read(case.labels[modality])
            label = label_indices(file, manifest.labels, manifest.ignore)
            scores = there_and_back(label, file.require_sound().grid, preprocessing, len(kept))
            for name, dice in zip(kept, scores, strict=True):
                if not math.isnan(dice):
                    kept[name].append(dice)
        means = {name: round(statistics.fmean(own), 4) for name, own in kept.items() if own}
        found[modality] = Ceiling(len(cases[:SCANS]), means)
    return found


def there_and_back(
    label: np.ndarray, native: Grid, preprocessing: Preprocessing, classes: int
) -> list[float]:
    """Return the Dice of each class's label with itself after the way through the prepared grid.

    The way there is that of training labels, the way back that of predicted probabilities.

    Args:
        label: (X, Y, Z) class indices, `IGNORE` where there is no annotation.
        native: grid of the label.
        preprocessing: of the plan.
        classes: number of classes K.

    Returns:
        K values for the class indices 1 … K, NaN for a class that the label lacks.
    """
    label, native = _labelled_part(label, native, preprocessing)
    prepared = preprocessing.prepare_label(label, native)
    grid = respace(orient_grid(native, preprocessing.frame), preprocessing.spacing)
    traversal = Traversal().reoriented(grid.directions, native.directions)
    counts = np.zeros((3, classes + 1), dtype=np.int64)
    planes = _planes(prepared, classes)
    for slab in native_slabs(planes, grid, native, preprocessing.frame, traversal):
        truth = label[slab.part]
        known = truth != IGNORE
        truth, back = truth[known], slab.values.argmax(axis=0)[known]
        for row, values in zip(counts, (truth, back, truth[truth == back]), strict=True):
            row += np.bincount(values, minlength=classes + 1)
    own, returned, both = counts[:, 1:]
    return np.where(own > 0, 2 * both / np.maximum(own + returned, 1), np.nan).tolist()


def _planes(prepared: np.ndarray, classes: int) -> Iterator[tuple[int, Tensor]]:
    """Yield index and (K + 1, Y, Z) masks of the planes of a prepared label map."""
    names = np.arange(classes + 1)[:, None, None]
    for index, plane in enumerate(prepared):
        # What nobody annotated counts as background here, and is not compared.
        yield index, torch.from_numpy((np.maximum(plane, 0) == names).astype(np.float32))


def _labelled_part(
    label: np.ndarray, native: Grid, preprocessing: Preprocessing
) -> tuple[np.ndarray, Grid]:
    """Return the box of a label map that holds its classes, with a margin, and its grid."""
    margins = np.ceil(MARGIN * max(preprocessing.spacing) / native.spacing).astype(int)
    box = mask_box(label > 0, margins.tolist())
    return (label, native) if box is None else (label[box], native.part(box))
