"""From class probabilities to the label map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.components import drop_smaller_parts
from crossvox.inference.slabs import Consumer, Slab

KEPT = 0.7
"""A class that weighing would leave with a smaller share of its voxels keeps all of them."""


@dataclass(frozen=True)
class Decision:
    """How a label map is made of class probabilities.

    Attributes:
        weights: of the classes, background first, none above the background's; empty = all alike.
            The class of a voxel is that of the largest product of weight and probability. A class
            that would so lose more than 1 − `KEPT` of its voxels in a scan keeps all of them: what
            is only just found must not get lost, whereas too much of a class that is found well
            lies around it.
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
        plain = weighed = None
        for slab in slabs:
            for consume in consumers:
                consume(slab)
            if plain is None:
                plain = np.zeros(slab.shape, dtype=np.int16)
                weighed = plain.copy() if self.weights else None
            plain[slab.part] = slab.values.argmax(axis=0)
            if weighed is not None:
                weights = np.array(self.weights, dtype=slab.values.dtype).reshape(-1, 1, 1, 1)
                weighed[slab.part] = (slab.values * weights).argmax(axis=0)
        assert plain is not None  # a scan has at least one plane
        labels = plain if weighed is None else _unless_lost(weighed, plain)
        # After weighing: of two parts the one that is more certain is then the larger.
        drop_smaller_parts(labels, self.single)
        return labels


def _unless_lost(weighed: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """`weighed`, with the voxels of `plain` of classes that keep too few of them; in place."""
    classes = max(int(plain.max()), int(weighed.max())) + 1
    before, kept = np.zeros((2, classes), dtype=np.int64)
    for own, other in zip(plain, weighed, strict=True):
        before += np.bincount(own.ravel(), minlength=classes)
        kept += np.bincount(own[own == other], minlength=classes)
    for index in np.flatnonzero(kept[1:] < KEPT * before[1:]) + 1:
        weighed[plain == index] = index
    return weighed
