"""Fill round a scan whose value is no air's, such as zeros round a CT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from crossvox.data.content import FAINT, MIN_DISTINCT, filled_from_corners

APART = 0.02
"""Distance from the lowest values, in parts of the spread, at which fill is no air."""
FEW = 0.15
"""Share of negative values, smeared fill among them, up to which a scan has none of its own."""
AIR = -200.0
"""Only in a scan with lower values than this, as a CT, are zeros no background."""
SMEAR = 2
"""Voxels next to fill that resampling may have mixed with it."""


def odd_fill_value(
    stored: np.ndarray, scale: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> float | None:
    """Return a value at corners of a scan that may be fill and no air; None if there is none.

    Only a few voxels are looked at. Of several such values the one at most corners is returned.

    Args:
        stored: (X, Y, Z) values as they are stored.
        scale: makes intensities of stored values.
    """
    steps = [max(1, n // 32) for n in stored.shape]
    some = _real(stored[tuple(slice(None, None, step) for step in steps)], scale)
    if len(np.unique(some)) < MIN_DISTINCT:
        return None
    low, high = np.percentile(some, [1, 99])
    ends = (slice(None, 4), slice(-4, None))
    corners = [_real(stored[x, y, z], scale) for x in ends for y in ends for z in ends]
    plain = [float(c.flat[0]) for c in corners if np.ptp(c) <= FAINT * (high - low)]
    for value in sorted(set(plain), key=plain.count, reverse=True):
        others = some[np.abs(some - value) > FAINT * (high - low)]
        if others.size and _is_odd(value, others):
            return value
    return None


def split_odd_fill(data: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Find the fill of a value, and what it stands for.

    Args:
        data: (X, Y, Z) intensities.
        value: as `odd_fill_value` returns it.

    Returns:
        (X, Y, Z) masks of the fill and of what resampling may have mixed with it, and the lowest of
        the other intensities, but for a few; None if there is no such fill.
    """
    fill = filled_from_corners(data, value, FAINT * float(np.ptp(data)))
    near = ndimage.binary_dilation(fill, iterations=SMEAR)
    rest = data[~near]
    if not fill.any() or rest.size < 0.01 * data.size:
        return None
    low = float(np.percentile(rest, 0.5))
    if value < low and np.mean(rest < 0) > 0.01:
        return None
    return fill, near & ~fill, low


def without_odd_fill(data: np.ndarray) -> np.ndarray:
    """Return intensities with fill as low as the lowest of the others; a copy only if needed."""
    value = odd_fill_value(data)
    found = None if value is None else split_odd_fill(data, value)
    if value is None or found is None:
        return data
    fill, mixed, low = found
    clean = np.where(fill, np.float32(low), data)
    if value < low:
        clean = np.where(mixed, np.maximum(clean, np.float32(low)), clean)
    return clean.astype(data.dtype, copy=False)


def _is_odd(value: float, others: np.ndarray) -> bool:
    """Return whether a value lies below all others of a scan without negative ones, or in them."""
    low, high = np.percentile(others, [2, 98])
    if value < 0 and value <= low:
        return bool(np.mean(others < 0) < FEW)
    is_background = value == 0 and low > AIR
    return bool(value > low + APART * (high - low)) and not is_background


def _real(stored: np.ndarray, scale: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return scale(stored).astype(np.float64, copy=False)
