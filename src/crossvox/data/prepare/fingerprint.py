"""The data set's fingerprint: facts of the training images' headers, from which all is planned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossvox.data.checks.extent import Sizes, along
from crossvox.data.geometry import Grid, dataset_frame
from crossvox.data.manifest import Manifest
from crossvox.errors import UsageError


@dataclass(frozen=True)
class Fingerprint:
    """Facts of the training images' headers. No label and no other split is used.

    Attributes:
        frame: (3, 3) common orientation, columns are world vectors of the array axes.
        counts: modality → number of training images.
        spacing: modality → (3,) median spacing in mm along the frame's axes.
        extent: modality → (3,) median field of view in mm along the frame's axes.
        sizes: modality → least and largest sizes of the training images.
        paired: some subject has several modalities.
    """

    frame: np.ndarray
    counts: dict[str, int]
    spacing: dict[str, np.ndarray]
    extent: dict[str, np.ndarray]
    sizes: dict[str, Sizes]
    paired: bool


def fingerprint(manifest: Manifest) -> Fingerprint:
    """Read the headers of all training images.

    Raises:
        DataError: a header cannot be read.
        UsageError: a modality has no training image.

    >>> fingerprint(load_manifest("dataset.json")).counts
    {'ct': 18, 'mr': 12}
    """
    cases = manifest.split("train")
    grids: dict[str, list[Grid]] = {modality: [] for modality in manifest.modalities}
    for case in cases:
        for modality in case.images:
            grids[modality].append(case.read_grid(modality))
    missing = [modality for modality, found in grids.items() if not found]
    if missing:
        raise UsageError(
            f"{manifest.path}: no training image of {', '.join(missing)}; "
            "add train cases or take the modality out of the manifest"
        )
    frame = dataset_frame([grid for found in grids.values() for grid in found])

    def median(values: list[np.ndarray]) -> np.ndarray:
        return np.median(values, axis=0)

    return Fingerprint(
        frame=frame,
        counts={m: len(found) for m, found in grids.items()},
        spacing={
            m: median([along(frame, g, g.spacing) for g in found]) for m, found in grids.items()
        },
        extent={
            m: median([along(frame, g, g.extent) for g in found]) for m, found in grids.items()
        },
        sizes={m: Sizes.of(found, frame) for m, found in grids.items()},
        paired=any(len(case.images) > 1 for case in cases),
    )
