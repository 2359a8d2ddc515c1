"""Preprocessing of scans and label maps: orientation, spacing, normalised intensities."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossvox.data.content import Content, find_content
from crossvox.data.geometry import Grid, orient, respace
from crossvox.data.geometry.resampling import antialias, antialias_mask, resample
from crossvox.data.values import CHUNK

Window = tuple[float, float]
"""Lowest and highest Hounsfield unit that a CT is clipped to."""
SOFT_TISSUE: Window = (-160.0, 240.0)
FORMAT = 6
"""Version of the way that scans are prepared; arrays of another one are prepared anew."""


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network takes it.

    Attributes:
        array: (X, Y, Z) float32 normalised intensities.
        grid: its grid, as the header gives it.
        fill: value outside the field of view: the smallest of the array.
        body_box: (2, 3) bounding box of the body in voxels, first and one past the last.
        content: where the scan's file shows anything; None = unknown.
        aligned_grid: the grid on which it lies over the subject's other scans
            (`data.prepare.align`); None before alignment.
    """

    array: np.ndarray
    grid: Grid
    fill: float
    body_box: np.ndarray
    content: Content | None = None
    aligned_grid: Grid | None = None


@dataclass(frozen=True)
class Preprocessing:
    """Orientation, spacing and normalisation of a data set's scans; stored with each run.

    Attributes:
        frame: (3, 3) common orientation (`geometry.dataset_frame`).
        spacing: voxel size in mm along the frame's axes, the same for all modalities.
        kinds: modality → kind (`ct`, `mr`, …), which decides the normalisation.
        windows: modality → window of a CT; soft tissue's where none is given.

    >>> scan = read_image(Path("ct.nii.gz"))
    >>> Preprocessing(np.eye(3), (2, 2, 2), {"ct": "ct"}).prepare_image(scan.data, scan.grid, "ct")
    """

    frame: np.ndarray
    spacing: tuple[float, float, float]
    kinds: dict[str, str]
    windows: dict[str, Window] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cts = [modality for modality, kind in self.kinds.items() if kind == "ct"]
        windows = {modality: self.windows.get(modality, SOFT_TISSUE) for modality in cts}
        object.__setattr__(self, "windows", windows)

    def floor(self, modality: str) -> float | None:
        """Return the HU below which all values of a CT count alike; None for other kinds."""
        return self.windows[modality][0] if modality in self.windows else None

    def prepare_image(
        self, data: np.ndarray, grid: Grid, modality: str, crop: bool = False
    ) -> PreparedScan:
        """Orient, resample and normalise a scan.

        Args:
            data: (X, Y, Z) intensities.
            grid: where they lie.
            modality: of the scan.
            crop: cut off the planes of fill at its border first, if there are more than a few.
        """
        content = find_content(data)
        if crop and content.is_padded:
            part = tuple(slice(*ends) for ends in content.box.T.tolist())
            data, grid = data[part], grid.part(part)
        kind = self.kinds[modality]
        array, oriented = orient(data if kind == "ct" else _rescale(data), grid, self.frame)
        target = respace(oriented, self.spacing)
        array = antialias(array.astype(np.float32, copy=False), target.spacing / oriented.spacing)
        array = resample(array, oriented, target, fill=float(array.min()))
        body = above_air(array)
        window = self.windows.get(modality)
        array = _z_score(array, body) if window is None else _clip(array, window)
        box = _bounding_box(body)
        return PreparedScan(array, target, float(array.min()), box, content)

    def prepare_label(self, indices: np.ndarray, grid: Grid) -> np.ndarray:
        """Orient and resample a label map of class indices, (X, Y, Z) on `grid`.

        Each voxel gets the class with the largest share of it.

        Returns:
            (X', Y', Z') int16 class indices.
        """
        array, oriented = orient(indices, grid, self.frame)
        target = respace(oriented, self.spacing)
        factors = target.spacing / oriented.spacing
        best = np.full(target.shape, 0.0, dtype=np.float32)
        result = np.zeros(target.shape, dtype=np.int16)
        for value in np.unique(array):
            share = antialias_mask(array == value, factors)
            share = resample(share, oriented, target, fill=float(value == 0))
            larger = share > best
            result[larger], best[larger] = value, share[larger]
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "frame": self.frame.tolist(),
            "spacing": list(self.spacing),
            "kinds": dict(self.kinds),
            "windows": {modality: list(window) for modality, window in self.windows.items()},
            "format": FORMAT,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Invert `to_dict`."""
        x, y, z = values["spacing"]
        windows = {m: (float(low), float(high)) for m, (low, high) in values["windows"].items()}
        return cls(np.array(values["frame"]), (x, y, z), dict(values["kinds"]), windows)

    @property
    def digest(self) -> str:
        """Short hash; equal digests prepare equal arrays."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def above_air(array: np.ndarray) -> np.ndarray:
    """Return the mask of what is above a tenth of the range from the 1st to 99th percentile."""
    low, high = np.percentile(array, [1, 99])
    body = array > low + 0.1 * (high - low)
    return body if body.any() else np.ones_like(body)


def _bounding_box(body: np.ndarray) -> np.ndarray:
    """Return the (2, 3) box of the body without its outermost percent: table and noise."""
    bounds = []
    for axis in range(3):
        profile = body.sum(axis=tuple(k for k in range(3) if k != axis)).cumsum() / body.sum()
        bounds.append((np.searchsorted(profile, 0.01), np.searchsorted(profile, 0.99) + 1))
    return np.array(bounds).T


def _clip(array: np.ndarray, window: Window) -> np.ndarray:
    """Clip to a window of HU, and map it onto −2 … 2, in place."""
    low, high = window
    np.clip(array, low, high, out=array)
    array -= (low + high) / 2
    array /= (high - low) / 4
    return array


def _z_score(array: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Scale to mean 0 and deviation 1 over the body, its brightest 0.5 % clipped, in place."""
    np.minimum(array, np.percentile(array[body], 99.5), out=array)
    inside = array[body]
    mean, deviation = _moments(inside)
    array -= mean
    array /= max(deviation, 1e-6 * float(np.abs(inside).max())) or 1.0
    return array


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, in double precision and without a copy in it."""
    parts = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / len(values)
    squares = sum(float(np.square(part - np.float64(mean)).sum()) for part in parts)
    return mean, float(np.sqrt(squares / len(values)))


def _rescale(data: np.ndarray) -> np.ndarray:
    """Bring huge or tiny intensities near 1 by a power of two, which rounds nothing."""
    highest = float(np.abs(data).max())
    if 1e-15 < highest < 1e15 or highest == 0:
        return data
    return np.ldexp(data, -int(np.frexp(highest)[1]))
