"""Which slices of a scan to show, how to crop and turn them, and which grey values to spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MARGIN_MM = 30.0
"""How much is shown around the foreground."""


@dataclass(frozen=True)
class SlicePlan:
    """How to cut 2-D pictures out of (X, Y, Z) arrays of one grid.

    Attributes:
        axis: the array axis across which the slices lie.
        indices: the slices shown, ascending.
        down, right: the array axes that run down and to the right in the picture.
        crop: the index range of every array axis.
        flipped: the array axes to reverse.
        spacing: mm per array axis.
        window: grey values that are drawn black and white.
        letters: the patient's side on the left and right edge of the picture.
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
        """Slice `index` of `array`, cropped and turned: (rows, columns)."""
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
        """Proportions of the cropped picture in mm."""
        rows, columns = (self.crop[a].stop - self.crop[a].start for a in (self.down, self.right))
        return rows / columns * self.aspect


def plan_slices(
    image: np.ndarray,
    spacing: Sequence[float],
    labels: Sequence[np.ndarray],
    orientation: str = "RAS",
    count: int = 3,
) -> SlicePlan:
    """Choose at most `count` slices of `image` (X, Y, Z) by the foreground of all `labels`.

    The slices lie across the axis of coarsest spacing (the last of several), in the middle of
    equal shares of the foreground, of which every class counts the same however small it is.
    """
    axis = max(range(3), key=lambda a: (spacing[a], a))
    foreground = np.zeros(image.shape, bool)
    for label in labels:
        foreground |= np.asarray(label) > 0
    down, right = sorted(
        (a for a in range(3) if a != axis), key=lambda a: _priority(orientation[a])
    )
    # Towards the feet, the back and the patient's left: that is down and to the right.
    flipped = tuple(a for a in range(3) if orientation[a] in "SAR")
    opposite = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
    side = orientation[right]
    edges = (side, opposite[side]) if right in flipped else (opposite[side], side)
    return SlicePlan(
        axis=axis,
        indices=_indices(labels, image.shape[axis], axis, count),
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


def _indices(labels: Sequence[np.ndarray], length: int, axis: int, count: int) -> tuple[int, ...]:
    amount = np.zeros(length)
    for label in labels:
        for index in np.unique(label[label > 0]):
            share = (label == index).sum(axis=tuple(a for a in range(3) if a != axis))
            amount += share / share.sum()
    if not amount.any():
        amount += 1
    share = np.cumsum(amount) / amount.sum()
    wanted = (np.arange(count) + 0.5) / count
    return tuple(int(index) for index in np.unique(np.searchsorted(share, wanted)))


def foreground_crop(foreground: np.ndarray, spacing: Sequence[float]) -> tuple[slice, ...]:
    """The index ranges of a mask's foreground and 30 mm around; all of it if there is none."""
    ranges = []
    for axis, size in enumerate(foreground.shape):
        inside = np.flatnonzero(foreground.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = round(MARGIN_MM / spacing[axis])
        first, last = (inside[0], inside[-1]) if len(inside) else (0, size - 1)
        ranges.append(slice(max(0, int(first) - margin), min(size, int(last) + margin + 1)))
    return tuple(ranges)


def grey_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """The grey values to draw black and white, spread around those of the foreground."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [0.5, 99.5])
    inside = image[foreground & np.isfinite(image)]
    if inside.size:
        # A CT spans air to bone; the organs' own contrast would vanish in the whole range.
        p5, p95 = np.percentile(inside, [5, 95])
        # Of an organ that is all one grey value, nothing can be told apart anyway.
        if p95 > p5:
            low, high = max(low, p5 - 1.5 * (p95 - p5)), min(high, p95 + (p95 - p5))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)
