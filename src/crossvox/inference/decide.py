"""From class probabilities to the label map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.components import drop_smaller_parts
from crossvox.inference.slabs import Consumer, Slab

KEPT = 0.7
"""A class that weighing would leave with a smaller share of its voxels is not weighed."""


@dataclass(frozen=True)
class Decision:
    """How a label map is made of class probabilities.

    Attributes:
        weights: of the classes, background first; empty = all alike. The class of a voxel is that
            of the largest product of weight and probability. A class that would so lose more than
            1 − `KEPT` of its voxels in a scan keeps all of them: what is only just found must not
            get lost, whereas too much of a class that is found well lies around it.
        single: indices of the classes of which only the largest part is kept.
    """

    weights: tuple[float, ...] = ()
    single: tuple[int, ...] = ()

    @classmethod
    def of_all(cls, members: Sequence[Decision], n_classes: int) -> Decision:
        """For the mean of probabilities: mean weights, and the parts that all would drop."""
        single = set.intersection(*(set(member.single) for member in members))
        if not any(member.weights for member in members):
            return cls((), tuple(sorted(single)))
        weights = np.mean([member.weights or (1.0,) * n_classes for member in members], axis=0)
        return cls(tuple(weights.tolist()), tuple(sorted(single)))

    def label_map(self, slabs: Iterable[Slab], consumers: Sequence[Consumer] = ()) -> np.ndarray:
        """(X, Y, Z) int16 class indices; the first of equals wins.

        Args:
            slabs: of a whole scan.
            consumers: what else is shown each slab.
        """
        labels: np.ndarray | None = None
        for slab in slabs:
            for consume in consumers:
                consume(slab)
            if labels is None:
                classes = len(slab.values)
                n_maps = 2 if self.weights else 1
                maps = [np.zeros(slab.shape, dtype=np.int16) for _ in range(n_maps)]
                labels, counts = maps[-1], np.zeros((2, classes), dtype=np.int64)
            # The last is the weighed one, if there is one; else the only one.
            for found, count, weights in zip(maps, counts, (None, self.weights), strict=False):
                part = _largest(slab.values, weights)
                found[slab.part] = part
                count += np.bincount(part.ravel(), minlength=classes)
        assert labels is not None  # a scan has at least one plane
        if self.weights:
            for index in range(1, classes):
                if counts[1, index] < KEPT * counts[0, index]:
                    labels[maps[0] == index] = index
        drop_smaller_parts(labels, self.single)
        return labels


def _largest(values: np.ndarray, weights: Sequence[float] | None) -> np.ndarray:
    """(…) index of the largest of (C, …) values, weighed if there are weights."""
    if not weights:
        return values.argmax(axis=0)
    factors = np.array(weights, dtype=values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return (values * factors).argmax(axis=0)
