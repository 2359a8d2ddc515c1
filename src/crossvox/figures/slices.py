"""Choice of the slices of a scan to show, their crop and direction, and the grey window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.utils.boxes import mask_box

MARGIN_MM = 30.0
"""Margin shown around the foreground."""

SLICES = 3
"""Slices of a scan that are shown, at most."""


@dataclass(frozen=True)
class SlicePlan:
    """The cut of 2-D pictures out of (X, Y, Z) arrays of one grid.

    Attributes:
        axis: the array axis across which the slices lie.
        indices: the slices shown, ascending.
        down, right: the array axes that run down and to the right in the picture.
        crop: the index range of every array axis.
        flipped: the array axes to reverse.
        spacing: mm per array axis.
        window: the grey values drawn black and white.
        letters: the patient's side at the left and right edge of the picture.
    """

    axis: int
    indices: tuple[int, ...]
    down: int
    right: int
    crop: tuple[slice, ...]
    flipped: tuple[int, ...]
    spacing: tuple[float, ...]
    window: tuple[float, float]
    letters: tuple[str, str]

    def cut(self, array: np.ndarray, index: int) -> np.ndarray:
        """Return slice `index` of `array` (X, Y, Z), cropped and turned: (rows, columns)."""
        picked: list[slice | int] = list(self.crop)
        picked[self.axis] = index
        plane = np.asarray(array)[tuple(picked)]
        if self.down > self.right:
            plane = plane.T
        rows = -1 if self.down in self.flipped else 1
        columns = -1 if self.right in self.flipped else 1
        return plane[::rows, ::columns]

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width."""
        return self.spacing[self.down] / self.spacing[self.right]

    @property
    def height_to_width(self) -> float:
        """Height of the cropped picture over its width, both in mm."""
        rows, columns = (self.crop[a].stop - self.crop[a].start for a in (self.down, self.right))
        return rows / columns * self.aspect


def plan_slices(
    image: np.ndarray,
    spacing: Sequence[float],
    labels: Sequence[np.ndarray],
    orientation: str = "RAS",
) -> SlicePlan:
    """Choose at most `SLICES` slices of `image` (X, Y, Z) by the foreground of all `labels`.

    The slices lie across the axis of coarsest spacing (the last of several). They lie in the middle
    of equal shares of the foreground; every class counts the same, whatever its size.
    """
    axis = max(range(3), key=lambda a: (spacing[a], a))
    foreground = np.zeros(image.shape, bool)
    for label in labels:
        foreground |= np.asarray(label) > 0
    down, right = sorted(
        (a for a in range(3) if a != axis), key=lambda a: _priority(orientation[a])
    )
    # Down is towards the feet or the back, right is towards the back or the patient's left.
    flipped = tuple(a for a in range(3) if orientation[a] in "SAR")
    opposite = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
    side = orientation[right]
    edges = (side, opposite[side]) if right in flipped else (opposite[side], side)
    return SlicePlan(
        axis=axis,
        indices=_indices(labels, image.shape[axis], axis),
        down=down,
        right=right,
        crop=foreground_crop(foreground, spacing),
        flipped=flipped,
        spacing=tuple(float(s) for s in spacing),
        window=grey_window(image, foreground),
        letters=edges,
    )


def _priority(code: str) -> int:
    return next(k for k, pair in enumerate(("SI", "AP", "LR")) if code in pair)


def _indices(labels: Sequence[np.ndarray], length: int, axis: int) -> tuple[int, ...]:
    amount = np.zeros(length)
    for label in labels:
        for index in np.unique(label[label > 0]):
            share = (label == index).sum(axis=tuple(a for a in range(3) if a != axis))
            amount += share / share.sum()
    if not amount.any():
        amount += 1
    share = np.cumsum(amount) / amount.sum()
    wanted = (np.arange(SLICES) + 0.5) / SLICES
    return tuple(int(index) for index in np.unique(np.searchsorted(share, wanted)))


def foreground_crop(foreground: np.ndarray, spacing: Sequence[float]) -> tuple[slice, ...]:
    """Return the index ranges of a mask's foreground and 30 mm around; the whole mask if empty."""
    box = mask_box(foreground, [round(MARGIN_MM / edge) for edge in spacing])
    return box or tuple(slice(0, size) for size in foreground.shape)


def grey_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Return the grey values to draw black and white, chosen around those of the foreground."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [0.5, 99.5])
    inside = image[foreground & np.isfinite(image)]
    if inside.size:
        # A CT spans air to bone; the organs' own contrast would vanish in the whole range.
        p5, p95 = np.percentile(inside, [5, 95])
        # A foreground of one grey value says nothing about contrast; keep the whole range.
        if p95 > p5:
            low, high = max(low, p5 - 1.5 * (p95 - p5)), min(high, p95 + (p95 - p5))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)
