"""Which voxels of a scan show anything: fill that was put round it or into it shows nothing.

Fill holds one value, be it of air or of zeros. It is sought where it cannot be anatomy: in whole
planes, and from the corners of the scan inwards. Air that a body encloses is never reached.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

FAINT = 1e-4
"""Differences in fill, in parts of the scan's spread, that do not count."""
ODD = 1e-3
"""Share of the voxels of a plane of fill that may hold another value."""
MARKED = 0.1
"""The same for a plane with fill right behind it, such as one with burned-in text."""
MIN_DISTINCT = 16
"""In an image of fewer values, as of plain blocks, fill is told by whole planes only."""
DRAWN = 0.5
"""Share of the other voxels that have one value where they are text or drawn lines."""
SOLID = 5
"""Fill is at least so many voxels wide, so that noise of few values is none."""
THIN = 2
"""So many planes of fill at a side are too few to matter."""
BLOCK = 16
"""Planes that are looked at together."""

Columns = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Content:
    """The voxels of a scan that are not fill.

    A voxel is content if its planes and its columns along all three axes say so.

    Attributes:
        planes: for each axis, (n,) bool, whether a plane holds content.
        columns: for each axis, the first voxel of content of each column, and one past the last;
            two arrays over the other two axes. None = only whole planes are fill.
        others: of scans on the same grid. Fill is what is fill in all.

    >>> find_content(np.pad(values, 5)).box.tolist()
    [[5, 5, 5], [69, 55, 45]]
    """

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]
    columns: tuple[Columns, Columns, Columns] | None = None
    others: tuple[Content, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the scan along each axis."""
        x, y, z = (len(planes) for planes in self.planes)
        return x, y, z

    @property
    def box(self) -> np.ndarray:
        """(2, 3) first voxel, and one past the last, without the planes of fill at the border."""
        ends = [np.flatnonzero(planes)[[0, -1]] + (0, 1) for planes in self.planes]
        return np.array(ends).T

    @property
    def is_boxed(self) -> bool:
        """Whether planes at the scan's border are fill."""
        return not all(planes[0] and planes[-1] for planes in self.planes)

    def with_margin(self, margin: int) -> Content:
        """Return it with fill that ends so many voxels before what the scan shows.

        Whole planes stay as they are, and so do columns of fill all along.
        """
        if not margin or self.columns is None:
            return self
        first, second, third = (
            (
                low + _ended(ends[0] - low, margin, high - low),
                high - _ended(high - ends[1], margin, high - low),
            )
            for (low, high), ends in zip(self.box.T.tolist(), self.columns, strict=True)
        )
        others = tuple(other.with_margin(margin) for other in self.others)
        return Content(self.planes, (first, second, third), others)

    @property
    def is_padded(self) -> bool:
        """Whether more than a few planes at the scan's border are fill."""
        box = self.box
        return bool(max(box[0].max(), (np.array(self.shape) - box[1]).max()) > THIN)

    @property
    def is_all(self) -> bool:
        """Whether there is no fill."""
        return self.columns is None and all(planes.all() for planes in self.planes)

    def is_fill(self, places: np.ndarray) -> np.ndarray:
        """Return (n,) bool of (n, 3) voxel indices."""
        fill = np.zeros(len(places), dtype=bool)
        for plane in np.unique(places[:, 0]):
            own = places[:, 0] == plane
            fill[own] = self.fill_of(int(plane))[places[own, 1], places[own, 2]]
        return fill

    def fill_of(self, plane: int) -> np.ndarray:
        """Return the (Y, Z) mask of fill of a plane along the first axis."""
        fill = self._own_fill_of(plane)
        for other in self.others:
            fill &= other.fill_of(plane)
        return fill

    def _own_fill_of(self, plane: int) -> np.ndarray:
        y, z = self.planes[1], self.planes[2]
        if not self.planes[0][plane]:
            return np.ones((len(y), len(z)), dtype=bool)
        fill = ~(y[:, None] & z)
        if self.columns is not None:
            along_x, along_y, along_z = self.columns
            fill |= (along_x[0] > plane) | (along_x[1] <= plane)
            rows = np.arange(len(y))[:, None]
            fill |= (along_y[0][plane] > rows) | (along_y[1][plane] <= rows)
            rows = np.arange(len(z))
            fill |= (along_z[0][plane][:, None] > rows) | (along_z[1][plane][:, None] <= rows)
        return fill

    def clear(self, labels: np.ndarray) -> None:
        """Set the fill in (X, Y, Z) labels to 0, in place."""
        for index, plane in enumerate(labels):
            plane[self.fill_of(index)] = 0

    @classmethod
    def join(cls, parts: Sequence[Content]) -> Content:
        """Return where any of several scans of one grid may show something."""
        return replace(parts[0], others=tuple(parts[1:]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        packed = self.columns and [[_pack(ends) for ends in axis] for axis in self.columns]
        return {
            "planes": [planes.astype(int).tolist() for planes in self.planes],
            "columns": packed,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Content:
        """Invert `to_dict`."""
        x, y, z = (np.array(planes, dtype=bool) for planes in values["planes"])
        if values["columns"] is None:
            return cls((x, y, z))
        faces = ((len(y), len(z)), (len(x), len(z)), (len(x), len(y)))
        first, second, third = (
            (_unpack(ends[0], face), _unpack(ends[1], face))
            for ends, face in zip(values["columns"], faces, strict=True)
        )
        return cls((x, y, z), (first, second, third))


def find_content(data: np.ndarray) -> Content:
    """Find the fill of a scan.

    A plane is fill if it holds one value. A few of its voxels may hold another, and rounding or
    faint noise does not count. So is a plane with text before a plane of fill. Beside whole planes,
    fill reaches straight inwards from a face of the scan, where it holds a corner of it.

    Args:
        data: (X, Y, Z) intensities.
    """
    some = _sample(data)
    tolerance = FAINT * float(np.ptp(np.percentile(some, [1, 99])))
    x, y, z = (_content_planes(np.moveaxis(data, axis, 0), tolerance) for axis in range(3))
    content = Content((x, y, z))
    if len(np.unique(some)) < MIN_DISTINCT:
        return content
    box = content.box
    inner = data[tuple(slice(first, stop) for first, stop in box.T)]
    columns = [_columns(np.moveaxis(inner, axis, 0), tolerance) for axis in range(3)]
    if all(depths is None for depths in columns):
        return content
    along_x, along_y, along_z = (
        _in_whole(depths, axis, box, data.shape) for axis, depths in enumerate(columns)
    )
    return Content((x, y, z), (along_x, along_y, along_z))


def filled_from_corners(data: np.ndarray, value: float, tolerance: float) -> np.ndarray:
    """Return the (X, Y, Z) mask of one value that reaches straight inwards from the corners."""
    fill = np.zeros(data.shape, dtype=bool)
    for axis in range(3):
        for step in (1, -1):
            planes = np.moveaxis(data, axis, 0)[::step]
            inside = np.moveaxis(fill, axis, 0)[::step]
            for found, reached in _footprints(planes[0], tolerance):
                if abs(found - value) <= tolerance:
                    depths = _reach(planes, found, reached, tolerance)
                    inside |= np.arange(len(planes))[:, None, None] < depths
    return fill


def _sample(data: np.ndarray) -> np.ndarray:
    """Return some of the voxels."""
    steps = [max(1, n // 48) for n in data.shape]
    return data[tuple(slice(None, None, step) for step in steps)]


def _content_planes(planes: np.ndarray, tolerance: float) -> np.ndarray:
    """Return whether each plane holds content; one of all planes does."""
    fill = np.array([_is_fill(plane, tolerance) for plane in planes])
    beside = np.r_[True, fill, True]  # beyond the scan there is nothing
    for index in np.flatnonzero(~fill & beside[:-2] & beside[2:]):
        is_outside = bool(fill[:index].all() or fill[index + 1 :].all())
        fill[index] = _is_marked(planes[index], tolerance, MARKED if is_outside else 0)
    if fill.all():
        fill[-1] = False
    return ~fill


def _is_fill(plane: np.ndarray, tolerance: float) -> bool:
    steps = [max(1, n // 32) for n in plane.shape]
    some = plane[:: steps[0], :: steps[1]].ravel()
    value = np.float64(np.partition(some, len(some) // 2)[len(some) // 2])
    if np.count_nonzero(np.abs(some - value) > tolerance) > max(4, 0.05 * len(some)):
        return False  # most planes are told by a few of their voxels
    return int(np.count_nonzero(np.abs(plane - value) > tolerance)) <= ODD * plane.size


def _is_marked(plane: np.ndarray, tolerance: float, share: float) -> bool:
    """Return whether a plane between planes of fill is fill with text or lines drawn on it.

    Args:
        plane: between planes of fill.
        tolerance: see `find_content`.
        share: of its voxels that may hold anything.
    """
    value = np.float64(np.median(plane))
    other = plane[np.abs(plane - value) > tolerance]
    if len(other) <= share * plane.size:
        return True
    return int(np.unique(other, return_counts=True)[1].max()) >= DRAWN * len(other)


def _columns(planes: np.ndarray, tolerance: float) -> Columns | None:
    """Return how deep fill reaches inwards from the first and from the last plane, if it does."""
    depths = [_depths(planes[::step], tolerance) for step in (1, -1)]
    if not any(depth.any() for depth in depths):
        return None
    return depths[0], depths[1]


def _depths(planes: np.ndarray, tolerance: float) -> np.ndarray:
    """Return for each column how many voxels of fill it begins with, where that is solid."""
    depths = np.zeros(planes.shape[1:], dtype=np.int32)
    for value, reached in _footprints(planes[0], tolerance):
        depths += _reach(planes, value, reached, tolerance)
    return ndimage.grey_opening(depths, size=(SOLID, SOLID), mode="nearest")


def _reach(planes: np.ndarray, value: float, reached: np.ndarray, tolerance: float) -> np.ndarray:
    """Return how many voxels of a value the columns that are reached begin with."""
    depths = np.zeros(planes.shape[1:], dtype=np.int32)
    for start in range(0, len(planes), BLOCK):
        block = np.abs(planes[start : start + BLOCK] - value) <= tolerance
        block = np.logical_and.accumulate(block, axis=0) & reached
        depths += block.sum(axis=0, dtype=np.int32)
        reached = block[-1]
        if not reached.any():
            break
    return depths


def _footprints(face: np.ndarray, tolerance: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the value of each fill that holds a corner of a face, and where it lies there."""
    corners = [face[rows, columns] for rows in _ENDS for columns in _ENDS]
    for value in {float(np.median(corner)) for corner in corners}:
        alike = np.abs(face - value) <= tolerance
        parts, _ = ndimage.label(alike)
        held = {int(n) for rows in _ENDS for columns in _ENDS for n in parts[rows, columns].flat}
        reached = np.isin(parts, list(held - {0}))
        if reached.any():
            yield value, reached


_ENDS = (slice(None, 4), slice(-4, None))
"""A few voxels at each end of an axis."""


def _in_whole(depths: Columns | None, axis: int, box: np.ndarray, shape: Sequence[int]) -> Columns:
    """Return first voxels of content and those past the last for all columns of a scan.

    Args:
        depths: of fill in the columns in the box, from both ends; None = nowhere.
        axis: of the columns.
        box: (2, 3) part of the scan.
        shape: of the scan.
    """
    others = [k for k in range(3) if k != axis]
    dtype = np.int16 if shape[axis] < 2**15 else np.int32
    face = tuple(shape[k] for k in others)
    first = np.full(face, box[0, axis], dtype=dtype)
    stop = np.full(face, box[1, axis], dtype=dtype)
    if depths is not None:
        part = tuple(slice(box[0, k], box[1, k]) for k in others)
        first[part] = box[0, axis] + depths[0]
        stop[part] = box[1, axis] - depths[1]
    return first, stop


def _ended(depths: np.ndarray, margin: int, whole: int) -> np.ndarray:
    """Return depths of fill that ends so many voxels before anything else; `whole` stays."""
    depths = ndimage.minimum_filter(depths, size=2 * margin + 1, mode="nearest")
    return np.where(depths >= whole, whole, np.maximum(depths - margin, 0))


def _pack(ends: np.ndarray) -> str:
    # Neighbouring columns are alike, so that differences are small.
    steps = np.diff(ends.astype("<i4"), axis=0, prepend=np.int32(0))
    return base64.b64encode(zlib.compress(steps.tobytes())).decode()


def _unpack(text: str, shape: tuple[int, int]) -> np.ndarray:
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4").reshape(shape)
    return np.cumsum(steps, axis=0, dtype=np.int32)
