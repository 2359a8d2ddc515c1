"""Class probabilities on a scan's own grid, one class at a time, and what is made of them.

A stream yields (X, Y, Z) float32 arrays, one per class, background first. Only one of them is in
memory at a time: all classes of a large scan together would need many times the scan's own size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.special import entr
from torch import Tensor

from crossvox.data.geometry import Grid, orient, resample

Stream = Iterator[np.ndarray]
Consumer = Callable[[np.ndarray], None]
"""Is shown each class's probabilities in turn; must not change or keep the array."""


def native_channels(probabilities: Tensor, grid: Grid, native: Grid, frame: np.ndarray) -> Stream:
    """Bring probabilities from the prepared grid to the scan's own.

    Args:
        probabilities: (C, X', Y', Z') on `grid`.
        grid: of the prepared scan.
        native: of the scan's file.
        frame: orientation of the prepared grids (`Preprocessing.frame`).
    """
    _, oriented = orient(np.empty(native.shape, dtype=bool), native, frame)
    for channel in probabilities:
        # The prepared grid may end half a voxel short of the scan: its border continues.
        values = resample(channel.numpy(), grid, oriented, fill=None)
        # Every axis of `oriented` is one of `native`'s, so this undoes the re-ordering exactly.
        yield orient(values, oriented, native.directions)[0]


def mean_channels(streams: Sequence[Stream]) -> Stream:
    """The mean of several streams, class by class; a single one passes unchanged."""
    if len(streams) == 1:
        yield from streams[0]
        return
    for channels in zip(*streams, strict=True):
        total = channels[0].copy(order="K")
        for values in channels[1:]:
            total += values
        yield np.divide(total, len(streams), out=total)


def most_probable(channels: Iterable[np.ndarray], consumers: Sequence[Consumer] = ()) -> np.ndarray:
    """(X, Y, Z) int16 class indices; the first of equals wins, and `consumers` see each class."""
    stream = iter(channels)
    # In the memory order of the stream, whose axes may be re-ordered: twice as fast.
    best = next(stream).copy(order="K")
    labels = np.zeros_like(best, dtype=np.int16)
    for consume in consumers:
        consume(best)
    for index, values in enumerate(stream, start=1):
        for consume in consumers:
            consume(values)
        larger = values > best
        labels[larger] = index
        np.copyto(best, values, where=larger)
    return np.ascontiguousarray(labels)


class Entropy:
    """Predictive entropy of the classes it is shown, −Σ p ln p / ln C: 0 certain, 1 no idea."""

    def __init__(self) -> None:
        self._sum: np.ndarray | None = None
        self._classes = 0

    def __call__(self, probabilities: np.ndarray) -> None:
        """Take the next class's (X, Y, Z) probabilities."""
        if self._sum is None:
            self._sum = np.zeros_like(probabilities)
        # Interpolation may leave a rounding error below zero.
        self._sum += entr(np.maximum(probabilities, 0))
        self._classes += 1

    @property
    def map(self) -> np.ndarray:
        """(X, Y, Z) float32 in [0, 1]; needs two classes or more."""
        assert self._sum is not None and self._classes > 1
        return np.clip(self._sum / math.log(self._classes), 0, 1)
