"""From class probabilities to the label map: class weights, argmax, and one component per organ."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crossvox.batch import Offset, Offsets
from crossvox.data.content import Content
from crossvox.inference.slabs import Slab
from crossvox.utils.connected_components import (
    Box,
    class_boxes,
    class_centres,
    find_components,
    keep_largest_components,
)

MIN_KEPT = 0.7
"""A class that the weights would leave with a smaller share of its voxels keeps all of them."""

DECAY_MM = 60.0
"""Mean distance from the expected places at which a component counts as e times smaller."""

ROUNDING = 1e-9
"""Smaller gains are none, or equal choices could be exchanged for ever."""

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


class _Part(NamedTuple):
    """A component: its class, its number among the class's, its voxels, its mean voxel."""

    owner: int
    number: int
    size: int
    centre: np.ndarray


def keep_one_component(
    label: np.ndarray, affine: np.ndarray, classes: Collection[int], offsets: Offsets
) -> None:
    """Set all but one connected component of each class to 0, in place.

    Those components are kept that are large and lie together as in the labelled scans: for which
    the product of n · exp(−d / `DECAY_MM`) over the classes is largest, as far as `best_together`
    finds them. There n is the number of a component's voxels, and d the mean distance of its centre
    from where the other classes' ones expect it, by `offsets`. The distance of a pair is part of
    the d of both. If no other class says, the largest component is kept. The `CANDIDATES` largest
    components of a class take part.

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
    parts = [part for k, box in boxes.items() for part in _candidates(label, k, box)]
    others = class_centres(label, set(range(1, len(offsets) + 1)) - set(classes))
    parts += [_Part(k, 0, 1, centre) for k, centre in others.items()]
    if not parts:
        return
    owners = np.array([part.owner for part in parts])
    places = np.array([part.centre for part in parts]) @ affine[:3, :3].T
    misfit = _misfit(owners, places, offsets)
    for own in best_together(owners, np.log([part.size for part in parts]), misfit / DECAY_MM):
        part = parts[own]
        if part.owner in boxes and np.count_nonzero(owners == part.owner) > 1:
            # Searched once more: the components of all classes at once take too much memory.
            find_components(label, part.owner, boxes[part.owner]).keep_only(part.number)


def best_together(owners: np.ndarray, gains: np.ndarray, costs: np.ndarray) -> list[int]:
    """Choose one candidate of each class, for a large sum of gains minus pairwise costs.

    Starts from what fits each candidate in turn, and exchanges one choice after the other for as
    long as the sum grows. This nearly always finds the largest sum.

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
                if value.max() > value[own == chosen[place]] + ROUNDING:
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


def _candidates(label: np.ndarray, index: int, box: Box) -> list[_Part]:
    """Return the largest components of a class."""
    components = find_components(label, index, box)
    sizes, centres = components.sizes, components.centres()
    largest = np.argsort(-sizes, kind="stable")[:CANDIDATES]
    return [_Part(index, int(i), int(sizes[i]), centres[i]) for i in largest]


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
