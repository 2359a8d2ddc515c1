"""The intensities of a scan, and the values in it that are none: fill, spikes, NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 20
"""Voxels that are looked at together."""
SAMPLE = 100_000
"""Voxels that are drawn to judge a scan by."""
HUGE = 1000.0
"""A value that lies this many times the spread of all others beyond them is no intensity."""
FAR = 1.5
"""A value that lies this many times the spread of the others beyond them is isolated."""
MIN_DISTINCT = 32
"""With fewer distinct values, none but a huge one counts as isolated from the others."""
SMEARED = 3
"""Smeared fill lies this many times the spread of the bulk below it."""
SMEARED_TOP = 10
"""The same above it, where vessels and metal are bright."""
BELOW_CT = -4200
"""No CT holds lower values, padding included, and none as far above 0."""
TAIL = 0.005
"""Share of the voxels at the far end that does not count for the spread of the others."""


@dataclass(frozen=True)
class Values:
    """What the values of a scan are.

    A single value that lies far beyond all others is no intensity. Below them, or at a corner of
    the scan, it marks voxels without data. Otherwise it is a spike, such as a saturated voxel.

    Attributes:
        low: the smallest intensity; NaN if there is none.
        high: the largest one.
        top: what values above `high` count as: `high` if they are spikes, `low` if no data.
        no_data: finite values that mark voxels without data.
        cut: some finite value is no intensity.
        bad: number of NaN and Inf voxels.
        sample: (n,) float64, some of the intensities.
    """

    low: float
    high: float
    top: float
    no_data: tuple[float, ...]
    cut: bool
    bad: int
    sample: np.ndarray

    def clean(self, data: np.ndarray) -> np.ndarray:
        """Return intensities only, no data as the smallest of them; a copy only if it must be."""
        if not self.cut and not self.bad:
            return data
        clean = np.where(data > self.high, self.top, data)
        return np.where(clean >= self.low, clean, self.low).astype(data.dtype, copy=False)


def measure_values(
    stored: np.ndarray, scale: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Values:
    """Measure the intensities of a scan.

    Args:
        stored: (X, Y, Z) values as they are stored.
        scale: makes intensities of stored values.
    """
    return _measure(_Voxels(stored, scale))


class _Voxels:
    """The voxels of a scan as they are stored, and how they are scaled."""

    def __init__(self, stored: np.ndarray, scale: Callable[[np.ndarray], np.ndarray]) -> None:
        """Keep (X, Y, Z) stored values, and what makes real ones of them."""
        self.stored = stored
        # A view where it can be one, whichever axis runs fastest.
        self.flat = stored.ravel(order="K")
        self.scale = scale

    def real(self, stored: np.ndarray) -> np.ndarray:
        """Return real values of stored ones, in double precision."""
        return self.scale(stored).astype(np.float64, copy=False)

    def finite_chunks(self) -> Iterator[np.ndarray]:
        """Yield the finite values in parts, as copies of them stay small however large a scan."""
        for start in range(0, len(self.flat), CHUNK):
            chunk = self.flat[start : start + CHUNK]
            if chunk.dtype.kind == "f" and not (finite := np.isfinite(chunk)).all():
                chunk = chunk[finite]
            yield chunk

    def sample(self) -> np.ndarray:
        """Draw finite values, and sort them."""
        drawn = self.flat
        if drawn.size > SAMPLE:
            # Not every n-th voxel, as these may all lie in one column.
            # The order in memory does not matter.
            places = np.random.default_rng(0).integers(0, drawn.size, SAMPLE)
            drawn = self.stored[np.unravel_index(places, self.stored.shape)]
        real = self.real(drawn)
        return np.sort(real[np.isfinite(real)])

    def corners(self) -> np.ndarray:
        """Return the values at the corners."""
        ends = np.ix_(*[sorted({0, n - 1}) for n in self.stored.shape])
        return self.real(self.stored[ends])


def _measure(voxels: _Voxels) -> Values:
    count, ends = 0, []
    for chunk in voxels.finite_chunks():
        count += chunk.size
        ends += [chunk.min(), chunk.max()] if chunk.size else []
    bad, sample = voxels.flat.size - count, voxels.sample()
    if not ends:
        return Values(np.nan, np.nan, np.nan, (), False, bad, sample)
    real = voxels.real(np.array(ends))
    low, high = float(real.min()), float(real.max())
    # The ends may not have been drawn.
    sample = np.concatenate([[low], sample, [high]])
    return _without_isolated(sample, voxels, bad)


class _Cut(NamedTuple):
    """Values that are no intensities: those up to `edge`, seen from an end.

    `fill` is the value that marks voxels without data; None = spikes.
    """

    end: int
    edge: float
    fill: float | None


_LOW, _HIGH = 1, -1
"""The ends of sorted values. From the upper one they are seen mirrored, so as to ascend, too."""


def _seen(values: np.ndarray, end: int) -> np.ndarray:
    """Return values as they are seen from an end; a second time, as they were."""
    return values if end == _LOW else -values[::-1]


def _without_isolated(sample: np.ndarray, voxels: _Voxels, bad: int) -> Values:
    """Cut isolated and smeared values off both ends of the sorted sample, until none is left."""
    corners, cuts = voxels.corners(), list[_Cut]()
    while True:
        while (cut := _first_cut(sample, corners)) is not None:
            cuts.append(cut)
            seen = _seen(sample, cut.end)
            sample = _seen(seen[seen > cut.edge], cut.end)
        low, high = float(sample[0]), float(sample[-1])
        if not cuts:
            break
        # Rare values between may not have been drawn.
        least, most = (
            max((cut.edge for cut in cuts if cut.end == end), default=-np.inf)
            for end in (_LOW, _HIGH)
        )
        low, high = _ends(voxels, least, -most)
        if low >= sample[0] and high <= sample[-1]:
            break
        sample = np.sort(np.concatenate([[low], sample, [high]]))
    fills = {cut.fill: cut.end for cut in cuts if cut.fill is not None}
    top = low if _HIGH in fills.values() else high
    return Values(low, high, top, tuple(fills), bool(cuts), bad, sample)


def _first_cut(sample: np.ndarray, corners: np.ndarray) -> _Cut | None:
    cuts = (rule(sample, corners, end) for rule in (_isolated, _smeared) for end in (_LOW, _HIGH))
    return next((cut for cut in cuts if cut is not None), None)


def _isolated(sample: np.ndarray, corners: np.ndarray, end: int) -> _Cut | None:
    """Cut off the value at an end of the sorted sample if it lies far beyond the others.

    The value at the other end does not count, as it may be isolated, too. At the lower end 0 is
    background, and a positive value counts only if it is huge.
    """
    seen = _seen(sample, end)
    others = seen[(seen > seen[0]) & (seen < seen[-1])]
    if not others.size:
        return None
    value, gap = float(end * seen[0]), others[0] - seen[0]
    spread = np.quantile(others, 1 - TAIL) - others[0]
    is_huge = spread > 0 and gap > HUGE * spread
    may_be = value != 0 if is_huge else gap > FAR * spread > 0 and (end == _HIGH or value < 0)
    if not may_be or _n_distinct(others) < (MIN_DISTINCT // 4 if is_huge else MIN_DISTINCT):
        return None
    is_fill = end == _LOW or is_huge or (corners == value).any()
    return _Cut(end, float(seen[0] / 2 + others[0] / 2), value if is_fill else None)


def _smeared(sample: np.ndarray, corners: np.ndarray, end: int) -> _Cut | None:
    """Cut off fill at an end of the sorted sample that was smeared, as by resampling."""
    seen = _seen(sample, end)
    edge = _fill_edge(seen, _seen(corners, end), is_top=end == _HIGH)
    return None if edge is None else _Cut(end, edge, _commonest(_seen(seen[seen <= edge], end)))


def _fill_edge(sample: np.ndarray, corners: np.ndarray, is_top: bool) -> float | None:
    """Return up to where sorted values are fill that was smeared, as by resampling, else None.

    Fill lies at a corner of the scan and far below the bulk of what is nearer to 0 than half of it.
    No CT reaches down to it. Any negative value that is repeated below a scan without others is
    fill, too.

    Args:
        sample: sorted.
        corners: the values at the corners.
        is_top: all values are mirrored.
    """
    value = float(sample[0])
    if value >= 0:
        return None
    body = sample[sample > value / 2]
    if len(body) < MIN_DISTINCT or _n_distinct(body) < MIN_DISTINCT:
        return None
    first, last = np.quantile(body, [0.2, 0.9])
    spread = last - first
    edge = float(first - (2 if is_top else 0.25) * spread)
    is_far = value < BELOW_CT and first - value > (SMEARED_TOP if is_top else SMEARED) * spread
    if is_far and spread > 0 and corners.min() < edge:
        plateau = _commonest(np.round(sample[sample < edge], -2))
        if np.mean(np.abs(sample - plateau) < 100) > TAIL:
            return edge
    if is_top or value > -0.1 * spread or np.mean(sample == value) < TAIL:
        return None
    others = sample[sample > value]
    return -np.finfo(np.float64).tiny if np.mean(others < 0) < 1e-3 else None


def _commonest(values: np.ndarray) -> float:
    found, numbers = np.unique(values, return_counts=True)
    return float(found[numbers.argmax()])


def _n_distinct(values: np.ndarray) -> int:
    return 1 + int(np.count_nonzero(np.diff(values)))


def _ends(voxels: _Voxels, least: float, most: float) -> tuple[float, float]:
    """Return the smallest and the largest of all values between the two."""
    low, high = np.inf, -np.inf
    for chunk in voxels.finite_chunks():
        real = voxels.real(chunk)
        inside = real[(real > least) & (real < most)]
        if inside.size:
            low, high = min(low, float(inside.min())), max(high, float(inside.max()))
    return low, high
