"""A scan made ready for the page's viewer: upright, cropped, coarsened, compressed."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid, orient, respace
from crossvox.data.geometry.resampling import antialias, resample
from crossvox.data.prepare.body import body_mask
from crossvox.figures.slices import foreground_crop, grey_window

UNKNOWN = 255
"""Value of voxels without annotation in the page."""

UPRIGHT = -np.eye(3)
"""Directions of the shown array axes: to the patient's left, back and feet."""

LEVELS = 15
"""Steps of the uncertainty; finer ones would take space and not be seen."""


@dataclass(frozen=True)
class ShownScan:
    """A scan for the viewer; axes 0, 1, 2 run to the patient's left, back and feet.

    Attributes:
        title: name in the list of scans.
        grey: (X, Y, Z) uint8.
        truth: (X, Y, Z) class indices, negative where not annotated; None if unlabelled.
        prediction: (X, Y, Z) class indices.
        uncertainty: (X, Y, Z) in [0, 1].
        spacing: size of the shown voxels in mm.
        window: the scan's values that are black and white in `grey`.
        note: how the scan was cropped and resampled.
    """

    title: str
    grey: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray
    uncertainty: np.ndarray
    spacing: tuple[float, ...]
    window: tuple[float, float] = (0.0, 255.0)
    note: str = ""


def to_shown_scan(
    volume: Volume, truth: np.ndarray, labels: np.ndarray, entropy: np.ndarray, voxels: int
) -> ShownScan:
    """Turn a scan with its label maps upright, crop it to the labels and coarsen it.

    The uncertainty is 0 outside the body and the labels: networks are unsure of air, to no harm.

    Args:
        volume: the scan.
        truth, labels: (X, Y, Z) class indices on the scan's grid.
        entropy: (X, Y, Z) in [0, 1] on the scan's grid.
        voxels: most voxels of the result.
    """
    arrays = [volume.data, truth, labels, entropy]
    turned = [orient(array, volume.grid, UPRIGHT)[0] for array in arrays]
    _, grid = orient(volume.data, volume.grid, UPRIGHT)
    foreground = (turned[1] > 0) | (turned[2] > 0)
    turned[3] = np.where(body_mask(turned[0]) | foreground, turned[3], 0)
    box = foreground_crop(foreground, grid.spacing.tolist())
    source = grid.part(box)
    image, truth, labels, entropy = (np.ascontiguousarray(array[box]) for array in turned)
    target = respace(source, shown_spacing(source.shape, source.spacing.tolist(), voxels))
    factors = target.spacing / source.spacing
    image = resample(antialias(image, factors), source, target, fill=None)
    entropy = resample(antialias(entropy, factors), source, target, fill=None)
    truth, labels = (resample(a, source, target, "nearest", fill=None) for a in (truth, labels))
    window = grey_window(image, (truth > 0) | (labels > 0))
    return ShownScan(
        title="",
        grey=to_grey(image, window),
        truth=truth,
        prediction=labels,
        uncertainty=np.clip(entropy, 0, 1),
        spacing=tuple(target.spacing.tolist()),
        window=window,
        note=_note(grid, target, bool(foreground.any())),
    )


def embed(scan: ShownScan) -> dict[str, Any]:
    """Return what the page's viewer reads: title, facts and data of a scan.

    `data` is base64 of gzip of uint8 volumes one after the other, axis 0 running fastest: greys,
    prediction, uncertainty in `LEVELS` steps and, for a labelled scan, truth.

    Raises:
        ValueError: there are more classes than a byte has values.
    """
    labels = [scan.prediction] if scan.truth is None else [scan.prediction, scan.truth]
    if max(int(label.max()) for label in labels) >= UNKNOWN:
        raise ValueError(f"the viewer takes at most {UNKNOWN - 1} classes")
    volumes = [scan.grey, scan.prediction, np.round(scan.uncertainty * LEVELS)]
    if scan.truth is not None:
        volumes.append(np.where(scan.truth < 0, UNKNOWN, scan.truth))
    raw = b"".join(volume.astype(np.uint8).tobytes(order="F") for volume in volumes)
    facts = {
        "shape": list(scan.grey.shape),
        "spacing": [round(s, 4) for s in scan.spacing],
        "labelled": scan.truth is not None,
        "levels": LEVELS,
        "window": [float(f"{value:.6g}") for value in scan.window],
        "note": scan.note,
    }
    # Without the time in the header, the same scans give the same page.
    data = base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()
    return {"title": scan.title, "facts": facts, "data": data}


def to_grey(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return uint8 greys of an image, black below and white above the window (low, high)."""
    low, high = window
    scaled = (np.nan_to_num(image, nan=low) - low) * (255 / (high - low))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def shown_spacing(shape: Sequence[int], spacing: Sequence[float], voxels: int) -> tuple[float, ...]:
    """Return the spacing at which a volume has at most about `voxels` voxels.

    The finest axes are coarsened first, so that the voxels become as isotropic as possible.
    """
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]

    def size(least: float) -> float:
        return math.prod(e / max(s, least) for e, s in zip(extent, spacing, strict=True))

    low, high = min(spacing), max(extent)
    if size(low) <= voxels:
        return tuple(spacing)
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if size(middle) > voxels else (low, middle)
    return tuple(max(s, high) for s in spacing)


def _note(grid: Grid, target: Grid, cropped: bool) -> str:
    scan, shown = (" × ".join(f"{s:.2g}" for s in g.spacing) for g in (grid, target))
    tilt = np.degrees(np.arccos(np.clip(np.abs(grid.directions).max(axis=0), 0, 1))).max()
    parts = [f"Voxels of {scan} mm"]
    if shown != scan:
        parts.append(f"shown at {shown} mm (scores are of the full scan)")
    if cropped:
        parts.append("cropped to 30 mm around the labels")
    if tilt > 1:
        parts.append(f"planes along the scan's own axes, up to {tilt:.0f}° oblique")
    return f"{', '.join(parts)}."
