"""Windows over a scan, blended row by row: of the answers only one window's depth is in memory.

What MONAI's `sliding_window_inference` returns, bit for bit, without an array for the whole of it:
as soon as no window to come reaches a row, the row is handed on and forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional as F

from crossvox.batch import Triple

Place = tuple[slice, slice, slice]
Answer = Callable[[Sequence[Place]], Tensor]
"""Windows → (B, C, *patch), B of them at a time."""


@dataclass(frozen=True)
class SlidingWindow:
    """Where windows lie on a scan, in the order of MONAI's; a small scan is padded on both sides.

    Attributes:
        shape: of the scan.
        patch: of a window.
        overlap: part of a window that its neighbour sees again.
        axis: along which the scan is passed through.
        descending: from its last row to the first.
    """

    shape: Sequence[int]
    patch: Triple
    overlap: float
    axis: int = 0
    descending: bool = False

    @property
    def pad(self) -> tuple[int, ...]:
        """Voxels in front of the scan."""
        return tuple(max(p - n, 0) // 2 for n, p in zip(self.shape, self.patch, strict=True))

    @property
    def places(self) -> list[Place]:
        """All windows, on the padded scan; those of one depth follow each other."""
        starts = [self._starts(axis) for axis in range(3)]
        if self.descending:
            starts[self.axis].reverse()
        order = [self.axis, *(k for k in range(3) if k != self.axis)]
        found = []
        for start in itertools.product(*(starts[k] for k in order)):
            place = {k: slice(n, n + self.patch[k]) for k, n in zip(order, start, strict=True)}
            found.append((place[0], place[1], place[2]))
        return found

    def cut(self, array: np.ndarray, fill: float, place: Place) -> Tensor:
        """(*patch) of an array on the scan's grid, and `fill` around the scan."""
        inside, around = [], []
        for part, pad, n in zip(place, self.pad, array.shape, strict=True):
            start, stop = part.start - pad, part.stop - pad
            inside.append(slice(max(start, 0), min(stop, n)))
            around.append((max(-start, 0), max(stop - n, 0)))
        found = torch.from_numpy(np.ascontiguousarray(array[tuple(inside)]))
        # Rounded as if the whole scan were padded with zeros: results stay the same to the bit.
        return F.pad(found - fill, [n for pair in reversed(around) for n in pair]) + fill

    def centre(self, place: Place) -> tuple[int, ...]:
        """A window's middle voxel, on the scan's grid."""
        return tuple(
            part.start - pad + n // 2
            for part, pad, n in zip(place, self.pad, self.patch, strict=True)
        )

    def _starts(self, axis: int) -> list[int]:
        last = max(self.shape[axis] - self.patch[axis], 0)
        step = max(int(self.patch[axis] * (1 - self.overlap)), 1)
        return [*range(0, last, step), last]


def slide(
    answer: Answer, windows: SlidingWindow, batch: int, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """The windows' answers, each weighted by a Gaussian over the window, averaged where they meet.

    Args:
        answer: computes some of the windows; on `device`.
        windows: where they lie.
        batch: how many at a time.
        device: where `answer` leaves its result. Rows are put together on the CPU.

    Yields:
        Each row of the scan along `windows.axis`, in order, and its (C, …, …) means.
    """
    axis, pad = windows.axis, windows.pad
    weight = compute_importance_map(windows.patch, mode="gaussian", device=device)
    weights = weight.to("cpu").movedim(axis, 0)
    rows = _Rows(windows)
    places = windows.places
    for start in range(0, len(places), batch):
        chosen = places[start : start + batch]
        found = answer(chosen)
        found *= weight
        for place, one in zip(chosen, found.to("cpu").movedim(axis + 2, 1), strict=True):
            for index, row in rows.finished(place[axis]):
                yield index - pad[axis], row
            rows.add(place, one.contiguous(), weights)
    for index, row in rows.finished(None):
        yield index - pad[axis], row


class _Rows:
    """Sums of weighted answers and of weights, of the rows that a window still reaches."""

    def __init__(self, windows: SlidingWindow) -> None:
        self.windows = windows
        self.sums: dict[int, tuple[Tensor, Tensor]] = {}
        self.across = [k for k in range(3) if k != windows.axis]

    def add(self, place: Place, answer: Tensor, weights: Tensor) -> None:
        """Take a window's (depth, C, …, …) answer, weighted by (depth, …, …) weights."""
        w = self.windows
        size = [max(w.shape[k], w.patch[k]) for k in self.across]
        here = tuple(place[k] for k in self.across)
        for i, index in enumerate(range(place[w.axis].start, place[w.axis].stop)):
            if index not in self.sums:
                self.sums[index] = (torch.zeros(answer.shape[1], *size), torch.zeros(size))
            total, count = self.sums[index]
            total[(slice(None),) + here] += answer[i]
            count[here] += weights[i]

    def finished(self, reached: slice | None) -> Iterator[tuple[int, Tensor]]:
        """Give away what no window reaches any more once one reaches `reached`; None: all."""
        w = self.windows
        pad, n = w.pad[w.axis], w.shape[w.axis]
        inner = tuple(slice(w.pad[k], w.pad[k] + w.shape[k]) for k in self.across)
        for index in sorted(self.sums, reverse=w.descending):
            if reached is not None and reached.start <= index < reached.stop:
                continue
            total, count = self.sums.pop(index)
            if pad <= index < pad + n:
                total /= count
                yield index, total[(slice(None),) + inner]
