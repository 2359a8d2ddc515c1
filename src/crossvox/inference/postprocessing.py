"""From class probabilities to the label map: class weights, argmax, and one component per organ."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.batch import Offset, Offsets
from crossvox.data.content import Content
from crossvox.inference.slabs import Slab
from crossvox.utils.connected_components import (
    Components,
    class_boxes,
    class_centres,
    find_components,
    keep_largest_components,
)

MIN_KEPT = 0.7
"""A class that the weights would leave with a smaller share of its voxels keeps all of them."""

DECAY_MM = 60.0
"""A component this much farther from its expected place counts as e times smaller."""

CANDIDATES = 10
"""So many components of a class, the largest ones, may be the one that is kept."""


@dataclass(frozen=True)
class Postprocessing:
    """The rule that turns class probabilities into a label map.

    Attributes:
        weights: factor on each class's probability before the argmax, background first, none
            above the background's; empty = 1 for all. A class that would lose more than
            1 − `MIN_KEPT` of its voxels in a scan by this keeps all of them: weights trim what is
            found well, and must not delete what is only just found.
        single: indices of the classes that keep one component only (`keep_one_component`).
        offsets: `Task.offsets`, by which that component is chosen; empty = the largest one.
    """

    weights: tuple[float, ...] = ()
    single: tuple[int, ...] = ()
    offsets: Offsets = ()

    @classmethod
    def combine(cls, parts: Sequence[Postprocessing], n_classes: int) -> Postprocessing:
        """Return the postprocessing for an ensemble's mean probabilities.

        Weights are averaged, offsets too, each over the models that know it. A class keeps one
        component if it does so in all models.
        """
        shared = set.intersection(*(set(part.single) for part in parts))
        single, offsets = tuple(sorted(shared)), _mean_offsets([part.offsets for part in parts])
        if not any(part.weights for part in parts):
            return cls((), single, offsets)
        weights = np.mean([part.weights or (1.0,) * n_classes for part in parts], axis=0)
        return cls(tuple(weights.tolist()), single, offsets)

    def label_map(
        self, slabs: Iterable[Slab], affine: np.ndarray, content: Content | None = None
    ) -> np.ndarray:
        """Return (X, Y, Z) int16 class indices; of equally probable classes the first wins.

        Args:
            slabs: of a whole scan.
            affine: (4, 4) of the scan, voxel index → world position in mm (RAS+).
            content: see `LabelMap.finish`.
        """
        labels = LabelMap(self)
        for slab in slabs:
            labels.add(slab)
        return labels.finish(affine, content)


class LabelMap:
    """A label map that is made of one slab after the other."""

    def __init__(self, rule: Postprocessing) -> None:
        self.rule = rule
        self._plain: np.ndarray | None = None
        self._weighted: np.ndarray | None = None

    def add(self, slab: Slab) -> None:
        """Take the classes of a slab's voxels."""
        rule = self.rule
        if self._plain is None:
            self._plain = np.zeros(slab.shape, dtype=np.int16)
            self._weighted = self._plain.copy() if rule.weights else None
        self._plain[slab.part] = slab.values.argmax(axis=0)
        if self._weighted is not None:
            weights = np.array(rule.weights, dtype=slab.values.dtype).reshape(-1, 1, 1, 1)
            self._weighted[slab.part] = (slab.values * weights).argmax(axis=0)

    def finish(self, affine: np.ndarray, content: Content | None = None) -> np.ndarray:
        """Return (X, Y, Z) int16 class indices, once all slabs were added.

        Args:
            affine: (4, 4) of the scan, voxel index → world position in mm (RAS+).
            content: where the scan shows anything; elsewhere there is no class. None = unknown.
        """
        assert self._plain is not None  # a scan has at least one plane
        labels = self._plain
        for classes in (self._plain, self._weighted):
            if content is not None and classes is not None:
                content.clear(classes)
        if self._weighted is not None:
            labels = _restore_lost(self._weighted, self._plain)
        # After weighting, the more certain of two components is the larger one.
        if self.rule.single:
            keep_one_component(labels, affine, self.rule.single, self.rule.offsets)
        return labels


def keep_one_component(
    label: np.ndarray, affine: np.ndarray, classes: Collection[int], offsets: Offsets
) -> None:
    """Set all but one connected component of each class to 0, in place.

    Those components are kept that are large and lie together as in the labelled scans: for which
    the product of n · exp(−d / `DECAY_MM`) over the classes is largest. There n is the number of a
    component's voxels, and d the mean distance of its centre from where the other classes' ones
    expect it, by `offsets`. If no other class says, the largest component is kept. The `CANDIDATES`
    largest components of a class take part.

    Args:
        label: (X, Y, Z) class indices, 0 background; changed in place.
        affine: (4, 4), voxel index → world position in mm (RAS+).
        classes: indices of the classes to treat; others stay as they are, and count by the centre
            of all their voxels.
        offsets: `Task.offsets`.
    """
    if not offsets:
        keep_largest_components(label, classes)
        return
    boxes = dict(class_boxes(label, classes))
    parts = [(k, *_candidates(find_components(label, k, box))) for k, box in boxes.items()]
    others = class_centres(label, set(range(1, len(offsets) + 1)) - set(classes))
    parts += [(k, np.zeros(1, int), np.ones(1, int), centre[None]) for k, centre in others.items()]
    if not parts:
        return
    owners, numbers, sizes, centres = (
        np.concatenate(values)
        for values in zip(*((np.full(len(n), k), n, *rest) for k, n, *rest in parts), strict=True)
    )
    misfit = _misfit(owners, centres @ affine[:3, :3].T, offsets)
    for own in best_together(owners, np.log(sizes), misfit / DECAY_MM):
        if box := boxes.get(int(owners[own])):
            # Searched once more: the components of all classes at once take too much memory.
            find_components(label, int(owners[own]), box).keep_only(int(numbers[own]))


def best_together(owners: np.ndarray, gains: np.ndarray, costs: np.ndarray) -> list[int]:
    """Choose one candidate of each class, so that the sum of gains minus pairwise costs is largest.

    Starts from what fits each candidate in turn, and exchanges one choice after the other for as
    long as the sum grows.

    Args:
        owners: (n,) the class of each candidate, each class's side by side.
        gains: (n,) of each candidate.
        costs: (n, n) of each pair, symmetric; zero between candidates of one class.

    Returns:
        The candidates, in the order of the classes in `owners`.
    """
    groups = [np.flatnonzero(owners == k) for k in dict.fromkeys(owners.tolist())]
    best: list[int] = []
    most = -np.inf
    for start in range(len(owners)):
        seen = gains - costs[start]
        chosen = [int(start if start in own else own[seen[own].argmax()]) for own in groups]
        growing = True
        while growing:
            growing = False
            for place, own in enumerate(groups):
                value = gains[own] - costs[own][:, chosen].sum(axis=1)
                better = int(own[value.argmax()])
                if value.max() > value[own == chosen[place]]:
                    chosen[place], growing = better, True
        total = gains[chosen].sum() - costs[chosen][:, chosen].sum() / 2
        if total > most:
            best, most = chosen, total
    return best


def _restore_lost(weighted: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Give the classes that lost too many voxels of `plain` all of them back; in place."""
    n = max(int(plain.max()), int(weighted.max())) + 1
    before, kept = np.zeros((2, n), dtype=np.int64)
    for own, other in zip(plain, weighted, strict=True):
        before += np.bincount(own.ravel(), minlength=n)
        kept += np.bincount(own[own == other], minlength=n)
    for index in np.flatnonzero(kept[1:] < MIN_KEPT * before[1:]) + 1:
        weighted[plain == index] = index
    return weighted


def _mean_offsets(models: Sequence[Offsets]) -> Offsets:
    def mean(known: Sequence[Offset]) -> Offset | None:
        if not known:
            return None
        x, y, z = np.mean(known, axis=0).tolist()
        return x, y, z

    given = [offsets for offsets in models if offsets]
    return tuple(
        tuple(mean([o for o in pair if o is not None]) for pair in zip(*rows, strict=True))
        for rows in zip(*given, strict=True)
    )


def _candidates(components: Components) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number, size and centre of the largest components, in voxels."""
    # A function, so that these components are freed before the next class's are found.
    largest = np.argsort(-components.sizes, kind="stable")[:CANDIDATES]
    return largest, components.sizes[largest], components.centres()[largest]


def _misfit(owners: np.ndarray, places: np.ndarray, offsets: Offsets) -> np.ndarray:
    """Return (n, n) for each pair how many mm it adds to d of `keep_one_component`, symmetric.

    Args:
        owners: (n,) the class of each candidate.
        places: (n, 3) their centres in mm.
        offsets: `Task.offsets`.
    """
    misfit = np.zeros((len(owners), len(owners)))
    present = np.unique(owners)
    for a in present:
        known = [b for b in present if offsets[a - 1][b - 1] is not None]
        for b in known:
            pair = np.ix_(owners == a, owners == b)
            apart = places[owners == a][:, None] - places[owners == b]
            misfit[pair] = np.linalg.norm(apart - offsets[a - 1][b - 1], axis=-1) / len(known)
    return misfit + misfit.T
