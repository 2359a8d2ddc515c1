"""The one description of how a scan becomes network input; stored with every run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.data.geometry import Grid, antialias, orient, resample, respace


@dataclass(frozen=True)
class Prepared:
    """A scan on its target grid.

    Attributes:
        array: (X, Y, Z) float32, normalised.
        grid: its grid.
        fill: what stands outside the field of view (the darkest prepared value).
        box: (2, 3) voxel indices of the body's bounding box, first and one past the last.
        place: where it lies over the subject's other scans (`data.prepare.align`); None until
            that is looked for.
    """

    array: np.ndarray
    grid: Grid
    fill: float
    box: np.ndarray
    place: Grid | None = None


@dataclass(frozen=True)
class Preprocessing:
    """Orientation, spacing and intensity normalisation.

    Attributes:
        frame: (3, 3) common orientation (`geometry.dataset_frame`).
        spacing: voxel size in mm along the frame's axes, the same for all modalities.
        kinds: modality → kind (`ct`, `mr`, …), which decides the normalisation.
    """

    frame: np.ndarray
    spacing: tuple[float, float, float]
    kinds: dict[str, str]

    def image(self, data: np.ndarray, grid: Grid, modality: str) -> Prepared:
        """Orient, resample and normalise a scan ((X, Y, Z) on `grid`)."""
        array, oriented = orient(data, grid, self.frame)
        target = respace(oriented, self.spacing)
        array = antialias(array.astype(np.float32, copy=False), target.spacing / oriented.spacing)
        array = resample(array, oriented, target, fill=float(array.min()))
        body = _body(array)
        normalise = NORMALISERS.get(self.kinds[modality], _z_score)
        array = normalise(array, body)
        return Prepared(array, target, float(array.min()), _bounding_box(body))

    def label(self, indices: np.ndarray, grid: Grid) -> np.ndarray:
        """Orient and resample class indices: per voxel the class with the largest share."""
        array, oriented = orient(indices, grid, self.frame)
        target = respace(oriented, self.spacing)
        factors = target.spacing / oriented.spacing
        best = np.full(target.shape, 0.0, dtype=np.float32)
        result = np.zeros(target.shape, dtype=np.int16)
        for value in np.unique(array):
            share = antialias((array == value).astype(np.float32), factors)
            share = resample(share, oriented, target, fill=float(value == 0))
            larger = share > best
            result[larger], best[larger] = value, share[larger]
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "frame": self.frame.tolist(),
            "spacing": list(self.spacing),
            "kinds": dict(self.kinds),
            "format": 1,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`."""
        x, y, z = values["spacing"]
        return cls(np.array(values["frame"]), (x, y, z), dict(values["kinds"]))

    @property
    def digest(self) -> str:
        """Short hash: arrays prepared under equal digests are equal."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _body(array: np.ndarray) -> np.ndarray:
    """Voxels that are not air: a tenth of the way from the darkest to the brightest percent."""
    low, high = np.percentile(array, [1, 99])
    body = array > low + 0.1 * (high - low)
    return body if body.any() else np.ones_like(body)


def _bounding_box(body: np.ndarray) -> np.ndarray:
    """Box of the body without the outermost percent, so that tables and noise do not count."""
    bounds = []
    for axis in range(3):
        profile = body.sum(axis=tuple(k for k in range(3) if k != axis)).cumsum() / body.sum()
        bounds.append((np.searchsorted(profile, 0.01), np.searchsorted(profile, 0.99) + 1))
    return np.array(bounds).T


def _soft_tissue_window(array: np.ndarray, body: np.ndarray) -> np.ndarray:
    """CT: −160 … 240 HU onto −2 … 2; air, fat, soft tissue and bone stay where they are."""
    np.clip(array, -160, 240, out=array)
    array -= 40
    array /= 100
    return array


def _z_score(array: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Scans of arbitrary scale: mean 0, deviation 1 over the body, the brightest 0.5 % clipped."""
    np.minimum(array, np.percentile(array[body], 99.5), out=array)
    inside = array[body]
    array -= inside.mean()
    array /= max(float(inside.std()), 1e-6)
    return array


NORMALISERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ct": _soft_tissue_window,
}
"""Kind → normalisation, in place, of an array with its body; other kinds are z-scored."""
