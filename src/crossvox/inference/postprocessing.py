"""From class probabilities to the label map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.batch import Offset, Offsets
from crossvox.inference.largest_part import keep_one_component
from crossvox.inference.slabs import Slab, SlabCallback

MIN_KEPT = 0.7
"""A class that weighing would leave with a smaller share of its voxels keeps all of them."""


@dataclass(frozen=True)
class Postprocessing:
    """How a label map is made of class probabilities.

    Attributes:
        weights: factor on each class's probability before the argmax, background first, none
            above the background's; empty = 1 for all. A class that would lose more than
            1 − `MIN_KEPT` of its voxels in a scan by this keeps all of them.
        single: indices of the classes of which only one part is kept (`inference.largest_part`).
        offsets: `Task.offsets`, by which that part is chosen; empty = it is the largest.
    """

    weights: tuple[float, ...] = ()
    single: tuple[int, ...] = ()
    offsets: Offsets = ()

    @classmethod
    def combine(cls, members: Sequence[Postprocessing], n_classes: int) -> Postprocessing:
        """For the mean of probabilities: mean weights, the classes of which all would keep one
        part, and each offset's mean over those that know it."""
        shared = set.intersection(*(set(member.single) for member in members))
        single, offsets = tuple(sorted(shared)), _mean_offsets([m.offsets for m in members])
        if not any(member.weights for member in members):
            return cls((), single, offsets)
        weights = np.mean([member.weights or (1.0,) * n_classes for member in members], axis=0)
        return cls(tuple(weights.tolist()), single, offsets)

    def label_map(
        self, slabs: Iterable[Slab], affine: np.ndarray, consumers: Sequence[SlabCallback] = ()
    ) -> np.ndarray:
        """(X, Y, Z) int16 class indices; the first of equals wins.

        Args:
            slabs: of a whole scan.
            affine: (4, 4) of the scan, voxel index → world position in mm (RAS+).
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
        if self.single:
            keep_one_component(labels, affine, self.single, self.offsets)
        return labels


def _mean_offsets(members: Sequence[Offsets]) -> Offsets:
    def mean(known: Sequence[Offset]) -> Offset | None:
        if not known:
            return None
        x, y, z = np.mean(known, axis=0).tolist()
        return x, y, z

    told = [offsets for offsets in members if offsets]
    return tuple(
        tuple(mean([o for o in pair if o is not None]) for pair in zip(*rows, strict=True))
        for rows in zip(*told, strict=True)
    )


def _unless_lost(weighed: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """`weighed`, with the voxels of `plain` of classes that keep too few of them; in place."""
    classes = max(int(plain.max()), int(weighed.max())) + 1
    before, kept = np.zeros((2, classes), dtype=np.int64)
    for own, other in zip(plain, weighed, strict=True):
        before += np.bincount(own.ravel(), minlength=classes)
        kept += np.bincount(own[own == other], minlength=classes)
    for index in np.flatnonzero(kept[1:] < MIN_KEPT * before[1:]) + 1:
        weighed[plain == index] = index
    return weighed
