"""An order of scans to label next: uncertain ones first, and ones unlike any labelled scan.

Uncertainty is the entropy of the predicted classes (Settles, *Active Learning Literature Survey*,
2009). Diversity is the greedy solution of the k-centre problem (Sener and Savarese, ICLR 2018),
on descriptors of the scan and of what was found in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.inference.settings import Strategy
from crossvox.inference.slabs import entropy

DECILES = np.linspace(0.05, 0.95, 10)


@dataclass(frozen=True)
class Candidate:
    """A scan that could be labelled.

    Attributes:
        case: id.
        modality: of the scan.
        uncertainty: see `uncertainty`.
        features: (N,), see `describe`.
    """

    case: str
    modality: str
    uncertainty: float = float("nan")
    features: np.ndarray | None = None


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate at its place in the ranking.

    Attributes:
        candidate: the scan.
        distance: to the nearest scan of its modality that is labelled or ranked before it, in
            standard deviations per feature; NaN if the strategy does not need it.
    """

    candidate: Candidate
    distance: float

    def numbers(self) -> list[str]:
        """Return uncertainty and distance with six digits; NaN is empty."""
        found = (self.candidate.uncertainty, self.distance)
        return ["" if math.isnan(number) else f"{number:.6g}" for number in found]


def uncertainty(probabilities: Tensor) -> float:
    """Return the mean entropy of the voxels predicted as foreground, 0 (certain) to 1.

    If there are none, the hundredth of the voxels that is most likely foreground counts instead:
    a method that found nothing is not certain of the scan.

    Args:
        probabilities: (C, X, Y, Z), C > 1, with sum 1 over C.
    """
    p = probabilities.flatten(1)
    unsure = entropy(p.numpy())
    region = p.argmax(0) > 0
    if region.any():
        return float(unsure[region].mean())
    likely = (1 - p[0]).topk(max(1, p.shape[1] // 100)).indices
    return float(unsure[likely].mean())


def describe(prepared: PreparedScan, probabilities: Tensor) -> np.ndarray:
    """Describe a scan by a vector, to compare it with others of its modality.

    The entries are the extent of the body in mm and the deciles of its intensities. For each
    class follow the logarithm of its volume in mL, its mean intensity, and its centre relative to
    the body's box.

    Args:
        prepared: the scan.
        probabilities: (C, X, Y, Z) on the prepared grid.

    Returns:
        (13 + 5 (C − 1),) float64.
    """
    low, high = prepared.body_box.astype(int)
    body = prepared.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    features = [*((high - low) * prepared.grid.spacing), *np.quantile(body, DECILES)]
    index = np.stack(np.meshgrid(*map(np.arange, prepared.array.shape), indexing="ij"), -1)
    position = (index - low) / np.maximum(high - low, 1)
    for channel in probabilities[1:].numpy():
        volume = channel.sum() * np.prod(prepared.grid.spacing) / 1000
        weights = channel / max(float(channel.sum()), 1e-6)
        centre = np.tensordot(weights, position, axes=3)
        features += [np.log1p(volume), float((weights * prepared.array).sum()), *centre]
    return np.array(features, dtype=np.float64)


def rank(
    candidates: Sequence[Candidate],
    labelled: Mapping[str, Sequence[np.ndarray]],
    strategy: Strategy,
    seed: int = 0,
) -> list[RankedCandidate]:
    """Order candidates by how much labelling them helps, the most helpful first.

    * `uncertainty`: the most uncertain scan first.
    * `diverse`: again and again the scan that is farthest from all labelled and ranked scans of
      its modality.
    * `both`: as `diverse`, by the sum of distance and uncertainty, each divided by its largest
      value within the modality.
    * `random`: drawn by the seed.

    >>> best = rank(candidates, {"ct": labelled_features}, "both")[0]
    >>> best.candidate.case, best.distance

    Args:
        candidates: with features and uncertainty, unless the strategy is `random`.
        labelled: modality → features of the labelled scans; where there are none, the mean of the
            modality's candidates stands for them.
        strategy: one of the above.
        seed: of `random`.
    """
    if strategy == "random":
        drawn = np.random.default_rng(seed).permutation(len(candidates))
        return [RankedCandidate(candidates[i], float("nan")) for i in drawn]
    space = _FeatureSpace(candidates, labelled)
    unsure = np.array([candidate.uncertainty for candidate in candidates])
    most_unsure, farthest = space.largest(unsure), space.largest(space.distance)
    weight_unsure, weight_far = {"uncertainty": (1, 0), "diverse": (0, 1), "both": (1, 1)}[strategy]
    if strategy == "both":  # entropies and distances have no common unit
        unsure = unsure / most_unsure
    ranked = []
    left = list(range(len(candidates)))
    while left:
        score = weight_unsure * unsure + weight_far * space.distance / farthest
        best = max(left, key=lambda i: (score[i], -i))
        ranked.append(RankedCandidate(candidates[best], float(space.distance[best])))
        left.remove(best)
        space.add_centre(best)
    return ranked


class _FeatureSpace:
    """Standardised features of the candidates, and their distances to the nearest centre.

    Centres are the labelled scans and the candidates ranked so far, of the same modality.
    """

    def __init__(
        self, candidates: Sequence[Candidate], labelled: Mapping[str, Sequence[np.ndarray]]
    ) -> None:
        self.modalities = np.array([c.modality for c in candidates])
        self.distance = np.full(len(candidates), np.inf)
        self.points: dict[int, np.ndarray] = {}
        for modality in np.unique(self.modalities):
            own = np.flatnonzero(self.modalities == modality)
            features = np.array([candidates[int(i)].features for i in own], dtype=np.float64)
            known = np.array(labelled.get(str(modality), []), dtype=np.float64)
            known = known.reshape(-1, features.shape[1])
            everything = np.concatenate([features, known])
            mean, deviation = everything.mean(0), everything.std(0)
            # A feature that is equal in all scans says nothing, so it gets no weight.
            scale = np.where(deviation > 1e-9, deviation, np.inf) * np.sqrt(len(mean))
            centres = (known - mean) / scale if len(known) else np.zeros((1, len(mean)))
            for i, point in zip(own, (features - mean) / scale, strict=True):
                self.points[int(i)] = point
                self.distance[i] = np.linalg.norm(centres - point, axis=1).min()

    def add_centre(self, index: int) -> None:
        """Make a candidate one of the centres."""
        for i in np.flatnonzero(self.modalities == self.modalities[index]):
            distance = np.linalg.norm(self.points[int(i)] - self.points[index])
            self.distance[i] = min(self.distance[i], float(distance))

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Return for each candidate the largest value within its modality, at least 1e-9."""
        largest = {m: max(values[self.modalities == m].max(), 1e-9) for m in self.modalities}
        return np.array([largest[m] for m in self.modalities])
