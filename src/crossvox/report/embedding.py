"""Encoding of scans and label maps for the page's viewer: 8 bits, compressed, as base64."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNKNOWN = 255
"""Value of voxels without annotation in the page."""

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
        note: how the scan was cropped, resampled and windowed.
    """

    title: str
    grey: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray
    uncertainty: np.ndarray
    spacing: tuple[float, ...]
    note: str = ""


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
        "note": scan.note,
    }
    # Without the time in the header, the same scans give the same page.
    data = base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()
    return {"title": scan.title, "facts": facts, "data": data}
